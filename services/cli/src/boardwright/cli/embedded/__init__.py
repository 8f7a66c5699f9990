"""Boardwright on one machine: every service as its own process on loopback, one worker and the gateway.

    stack.py        up, status, down: what the command calls
    supervisor.py   starts the processes, restarts what crashed, stops all of them in order
    processes.py    which processes there are, and the environment each gets
    child.py        the first code in each process: it ends with the supervisor
    folder.py       the data folder's files, and its lock
    credentials.py  tokens and keys, made on the first start
    ports.py        free ports, kept across restarts
    logs.py         one rotating log a process
    migrating.py    all databases brought up to date in one short-lived process

The supervisor imports the standard library only: it stays small and starts at once.
"""
