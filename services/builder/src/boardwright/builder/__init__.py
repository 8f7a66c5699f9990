"""The builder: variants become artifacts for exact boards, and are measured where they will run.

__main__.py    serve | migrate
app.py         where the parts are wired together
settings.py, errors.py
boards/        the catalogue as YAML, with its schemas, quantization profiles and operator tables
catalogue.py   reads and checks it
domain/        boards, compatibility, pins, tolerances, latency statistics: pure
steps/         build/build and build/measure, run in processes of their own
planning.py    from an order to a step, and from a finished step to what is registered
service.py     jobs in, artifacts and measurements registered
workers.py     which boards and toolchains the workers speak for
ports.py       what it asks of the registry and of the calibration service
rpc/           the Builder API, and the clients behind the ports
storage/       jobs, requests, events and the audit log
"""
