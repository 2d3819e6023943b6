"""``python -m marketpipe``: the command line."""

import sys

from marketpipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
