"""The Update Framework repositories that devices trust, one per fleet.

    keys.py        where signing keys live: the KeyStore port and its directory implementation
    policy.py      how long each role's metadata is valid and when it is signed again
    metadata.py    pure: from the current metadata and the wanted files to the next metadata
    __main__.py    what an operator does with keys: status, rotate, renew
    repository.py  FleetRepository: load, compare, write only what changed, in a safe order

Terms and rules follow the TUF specification 1.0 (https://theupdateframework.github.io/specification/).
"""
