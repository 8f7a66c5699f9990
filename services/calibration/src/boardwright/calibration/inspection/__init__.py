"""Decoding images that nobody vouches for, in a confined process.

- ``process``: the service's side: starts the process, feeds it, survives its death.
- ``confined``: the process (`python -m boardwright.calibration.inspection.confined`).
- ``figures``: what is measured of one image.
"""
