"""A page about a live run or a finished comparison, for a browser on this machine."""
