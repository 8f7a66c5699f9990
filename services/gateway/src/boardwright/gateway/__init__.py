"""The gateway: the one door to Boardwright. It keeps nothing and decides nothing; the services behind it do.

    app.py        the only place where parts are wired together
    settings.py   where it listens, and where the services are
    services.py   which API belongs to which service, and the connections to them
    proxy.py      the gRPC authority: passes calls on, byte for byte
    rest/         the same API as REST: routes.py (the table), mirror.py (a call), openapi.py (the document)
    problems.py   errors as RFC 9457 problem details
    devices.py    what devices speak: TUF files, enrolment, reports, downloads
    health.py     /health and /metrics

The directory store's signed requests (`/transfer`) are served by `boardwright.content.directory_app`.
"""
