"""`python -m eigenlens`: the command, without importing anything from the working directory."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # `-m` puts the working directory first on the path; a `random.py` there would be imported in place of Python's.
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
        del sys.path[0]
    from eigenlens.command import main

    sys.exit(main())
