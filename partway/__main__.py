"""`python -m partway`, and the entry point of the command `partway`."""

import sys

try:
    from partway.cli.main import main
except KeyboardInterrupt:  # before `main` could handle it
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
