"""DNNs: `profile` has the facts of a network, `cuts` its cut table; `macs`, `graph` and `runtime` work on ONNX files."""
