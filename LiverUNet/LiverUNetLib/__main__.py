"""`python -m LiverUNetLib` runs the command line `liver-unet`."""

import sys

from .cli.main import main

sys.exit(main())
