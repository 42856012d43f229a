"""python -m edgesparse"""

import sys
from pathlib import Path

# Python has put the current folder first: what lies in it replaces no module of anybody's.
if sys.path[0] in ("", str(Path.cwd())):
    sys.path.append(sys.path.pop(0))

if __name__ == "__main__":
    from edgesparse.cli.main import main

    main()
