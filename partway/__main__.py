"""`python -m partway` and the command `partway`: leave at once on Ctrl-C while the libraries are still being read."""

import gc
import os
import signal
import sys


def main() -> int:
    """Run the command line; returns its exit code."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    gc.disable()  # a sixth of the time went into looking for garbage in modules, where there is none
    from partway.cli import main as cli  # slow: here, where Ctrl-C is heard and nothing has been written yet

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, usual)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
