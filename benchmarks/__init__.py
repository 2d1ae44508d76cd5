"""Every claim measured in one run, against the floor and the peers: ``python -m benchmarks``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

# ``python -m`` puts the checkout first on the path. What is measured is the package that is
# installed: the checkout's has no C core, unless it is installed as editable, and then it is found.
if sys.path and Path(sys.path[0]).resolve() == ROOT:
    del sys.path[0]
