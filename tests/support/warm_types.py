"""Let mypy read the packages that the sources import, once: checking the sources then takes half of the time.

python -m tests.support.warm_types    part of the set-up by `make test`
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "docker", "eigenlens", "index", "model", "service", "tests")


def imported() -> set[str]:
    """The modules of other packages that the sources import."""
    own = {*FOLDERS, *sys.stdlib_module_names}
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module)
    return {name for name in found if name.partition(".")[0] not in own}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "imports.py"
        program.write_text("".join(f"import {name}\n" for name in sorted(imported())))
        # What mypy says of this program does not matter: it reads, and keeps, what is imported.
        mypy = Path(sys.executable).with_name("mypy")
        subprocess.run([mypy, program], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
