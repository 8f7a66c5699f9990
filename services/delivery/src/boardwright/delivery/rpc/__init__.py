"""gRPC: what the service answers (`servicer`, `convert`, `permissions`) and whom it asks (`registry`)."""
