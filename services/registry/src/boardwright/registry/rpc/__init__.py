"""The only files of the registry that see protobuf."""
