"""Calibration: datasets for calibration, evaluation and fine-tuning.

A dataset's version is open while samples are added, and immutable once sealed. Samples are
content-addressed and lie in packs, which the client uploads through the registry's Blobs API; this service
keeps what they are called and labelled, decodes them before sealing, and writes the manifest that names the
sealed version for good.

Map:

- ``app``, ``settings``: wiring; ``__main__``: serve | migrate.
- ``service``: datasets, versions and samples. ``sealing``: inspection, statistics, manifest, seal.
- ``domain``: ``dataset`` (resources and their rules), ``statistics`` (mergeable, constant memory).
- ``inspection``: the confined process that decodes images nobody vouches for.
- ``blobs``: the packs, through the Blobs API.
- ``rpc``, ``storage``: the edges to protobuf and to SQL.
"""
