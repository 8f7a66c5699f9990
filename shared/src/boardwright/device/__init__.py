"""What the delivery service writes and the device agent reads: the device protocol's documents.

    bundle.py    Bundle: what a device installs, as an OCI image manifest over blobs
    index.py     FleetIndex: which release each device of a fleet should run
    signing.py   how a device signs its requests
    tokens.py    enrolment tokens, which also carry the digest of the root that a device is to trust
    shorthand.py names as people read them
    errors.py    what a malformed document raises

Pure: no I/O, no clock. Light: the standard library, `boardwright.content`, and `cryptography` where used.
"""
