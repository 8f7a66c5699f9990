"""Protobuf on the builder's two sides: what it serves, and what it asks of others.

servicer.py       the Builder API
convert.py        boards, pins and orders from and to messages
permissions.py    which role each method needs
leases.py         the Leases API, noting what workers offer
registry_client.py, calibration_client.py    the ports, over gRPC
"""
