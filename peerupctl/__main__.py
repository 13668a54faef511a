"""`python -m peerupctl`."""

import sys

from peerupctl.cli import main

sys.exit(main())
