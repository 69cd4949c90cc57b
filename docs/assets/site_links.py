"""A hook of mkdocs: links that lead out of docs/, such as to README.md, become plain text on the site."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page without links to files outside of the site."""
    folder = DOCS / PurePosixPath(page.file.src_uri).parent

    def keep_or_unlink(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        return match[0] if target.is_relative_to(DOCS) and target.is_file() else match[1]

    return _LINK.sub(keep_or_unlink, markdown)
