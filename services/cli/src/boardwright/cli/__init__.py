"""The command `boardwright`.

    __main__.py   the entry point: errors become exit codes
    app.py        which commands there are, and the options before them
    session.py    which server and project the commands speak to
    output.py     tables and JSON
    progress.py   bars on standard error
    parsing.py    key=value options
    commands/     one module a family of commands; heavy imports happen inside of them
    demo/         the main job behind `make run`: from a checkpoint to a running device
    embedded/     `up`, `status`, `down`: every service on this machine

Exit codes: 0 done; 1 a defect; 2 wrong usage; 3 refused, with its reason; 4 something is unavailable.
"""
