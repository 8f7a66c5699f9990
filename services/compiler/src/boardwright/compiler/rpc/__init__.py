"""The only files that see protobuf: the servicer, and the clients of the other services."""
