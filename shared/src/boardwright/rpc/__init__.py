"""How services speak: server, channels, errors, callers and resource names.

errors.py       what services raise, to google.rpc.Status and back
auth.py         principals, roles, permissions, the token file; grants.py: a worker's signed grant
handling.py     what happens around every RPC (trace, caller, permission, errors, metrics)
turns.py        how many calls of one caller run at a time
server.py       `serve`; server_options.py: what every gRPC server is started with, how large a message is
launch.py       the command line of every service; ending.py: how a process that drained ends
client.py       `connect` and `connect_sync`
names.py        resource-name templates
translation.py  errors of the layers below, as errors for callers
"""
