"""Generated protocol buffers and gRPC stubs of Boardwright."""
