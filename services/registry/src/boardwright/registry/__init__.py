"""The registry: what was pushed, what was made of it, how good it is, and which release is on which stage.

app.py               the only place where parts are wired together; settings.py
models_service.py    models and their ladder of stages
versions_service.py  versions (numbers without gaps) and aliases
variants_service.py  variants, artifacts, measurements
releases_service.py  releases, promotion through gates, roll back, history
lineage_service.py   lineage, audit log, event log
blobs_service.py     the Blobs API: content by digest
recording.py         how every change is made: once per request_id, audited, in one transaction
checks.py, errors.py, names.py, ports.py
domain/              the resources and the rules over them
rpc/                 the only files that see protobuf
storage/             the only files that see rows
"""
