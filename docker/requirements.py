"""Print what the distribution requires with the given extras, one requirement a line.

An image installs these before it sees the code, so that a change of the code does not download torch again.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the requirements of the project and of the extras, and of those that they include.

    Raises: KeyError, if there is no such extra.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    itself = re.compile(rf"{re.escape(project['name'])}\[([\w,. -]+)\]")
    required: list[str] = list(project["dependencies"])
    open_extras = list(extras)
    while open_extras:
        for requirement in project["optional-dependencies"][open_extras.pop(0)]:
            included = itself.fullmatch(requirement)
            if included:
                open_extras += [name.strip() for name in included[1].split(",")]
            elif requirement not in required:
                required.append(requirement)
    return required


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1:])))
