"""`python -m partway` is `partway`."""

import sys

from partway.cli import main

sys.exit(main())
