"""Controllers, one short file per family: what a device does, what the server does, and how each learns."""
