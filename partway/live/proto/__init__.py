"""The messages on the wire: two .proto files, which document the protocol, and what `make protos` generates of them."""
