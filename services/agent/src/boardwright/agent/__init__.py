"""The device agent: keeps one device on the release that its fleet should run.

    cli.py         the command boardwright-agent: enroll, run, once, status
    device.py      wires a device together and does passes: check, install, report
    enrolment.py   a one-time token becomes a device with a key and a root to trust
    trust.py       signed metadata through tuf.ngclient, failures in plain words
    update.py      the order in which a release is installed, tried and, if need be, undone
    download.py    blobs by digest, resumable
    slots.py       two slots and the link to the one in use
    check.py       golden samples in the real runtime, in a process of its own; runtime.py loads the model
    server.py      signed calls to the delivery service; http.py the connections under it
    report.py      what the device tells
    home.py        the device's folder; errors.py, progress.py

It needs neither torch nor gRPC: tuf, urllib3, numpy, Pillow and the runtime.
"""
