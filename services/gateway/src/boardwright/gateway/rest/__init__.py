"""The gRPC API once more, as REST: one table says which RPC answers which path.

routes.py    the table
mirror.py    one HTTP request → one RPC → one answer
openapi.py   the OpenAPI document, from the table and the protos' descriptors
"""
