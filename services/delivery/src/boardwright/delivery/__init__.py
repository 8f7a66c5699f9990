"""Delivery: bundles, signing, fleets, rollouts, and what devices ask.

- app.py: where the parts are wired together; settings.py: the environment variables
- fleets_service.py: what operators ask about fleets, tokens and devices; auditing.py: who did it
- rollouts_service.py: what operators ask about bundles and rollouts
- device_service.py: what devices ask: enrol, report, download
- publishing.py: brings the signed repositories to what the records say, and keeps them signed
- ports.py: what the services need from outside; errors.py: the reasons they give
- domain/: pure: resources, rules of rollouts, bundling, fitting
- trust/: TUF repositories: keys, policy, metadata, files
- rpc/: servicer, conversion, permissions, the registry as a client
- storage/: tables, migrations, records
"""
