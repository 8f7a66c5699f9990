"""The edge to protobuf: `servicer` answers, `convert` translates, `permissions` says who may."""
