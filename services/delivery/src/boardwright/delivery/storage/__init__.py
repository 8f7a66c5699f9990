"""Rows: tables, migrations, and the records that the service sees of them."""
