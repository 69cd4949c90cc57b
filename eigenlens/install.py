"""Advice on installing: the line that adds an extra to this installation, be it a checkout or a wheel."""

from __future__ import annotations

import json
import shlex
from pathlib import Path


def install_line(*extras: str) -> str:
    """Return the command that installs this distribution again, with extras. No package index has it."""
    names = f"[{','.join(extras)}]" if extras else ""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{checkout}{names}')}"
    origin = _origin() or "file:///PATH/OF/THE/WHEEL"
    return f"pip install {shlex.quote(f'eigenlens{names} @ {origin}')}"


def _origin() -> str | None:
    """Return the address that pip installed from; None if it is unknown."""
    from importlib.metadata import PackageNotFoundError, distribution  # slow to import, and needed rarely

    try:
        recorded = distribution("eigenlens").read_text("direct_url.json")
        return str(json.loads(recorded)["url"]) if recorded else None
    except (PackageNotFoundError, ValueError, KeyError, TypeError):
        return None
