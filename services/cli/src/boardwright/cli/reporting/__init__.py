"""`boardwright report` beyond the table: what is known of a version is gathered, completed and written down.

gathering.py    from the services to `boardwright.compiler.engine.report.ReportData`
completing.py   `--full`: makes and measures the variants that the comparisons need
writing.py      HTML and Markdown files
"""
