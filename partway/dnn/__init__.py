"""DNNs: facts of a network (`profile`, `report`), its cut table (`cuts`), ONNX files (`graph`, `macs`, `runtime`), and
their halves (`boundary`, `halves`, `split`, `verification`)."""
