"""`python -m LiverUNetLib`: the command line without its console script."""

import sys

from .cli.main import main

sys.exit(main())
