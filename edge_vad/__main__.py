"""``python -m edge_vad``: the same as ``edge-vad``."""

import sys

from edge_vad.cli import main

sys.exit(main())
