"""The worker: ``python -m boardwright.jobs.worker`` leases steps and runs them, apart from itself.

- ``settings.py``     what the environment says
- ``poller.py``       asks every endpoint for leases and gives them to free slots
- ``leased_step.py``  one leased step: fetch inputs, run, heartbeat, store outputs, complete
- ``abandoned.py``    leases that a killed worker of this folder held
- ``input_cache.py``  inputs by digest, bounded in size
- ``step_states.py``  what interrupted steps go on from, bounded in size and age
- ``transfer.py``     blobs in and out under a lease's grant
- ``kinds.py``        which step kinds are installed here; ``probe.py`` which board and toolchains
- ``app.py``          the parts wired together

The worker talks to services and the store; the step's process sees files alone.
"""
