"""Schemathesis over the OpenAPI document of a running service, with all of its checks.

`python -m tests.contract --gallery DIR --cases 5000` runs it as long as wanted; the suite runs a short form.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eigenlens.service.keys import add_key
from tests.support.service import build_gallery, pixels_of, png, serving, settings_of

_CONFIG = Path(__file__).parent / "schemathesis.toml"


def check(
    url: str, headers: dict[str, str], *, examples: int, seed: int = 0, more: Sequence[str] = ()
) -> tuple[int, int, str]:
    """Exit status, generated cases and the report of one run with at most `examples` cases of each kind and call."""
    given = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file",
        str(_CONFIG),
        "--no-color",
        "run",
        f"{url}/openapi.json",
        "--checks=all",
        f"--max-examples={examples}",
        f"--seed={seed}",
        "--continue-on-failure",
        "--no-shrink",
        "--request-timeout=10",
        # Ids are paths, and it takes such values out of paths again: many of few examples are none.
        "--suppress-health-check=all",
        *given,
        *more,
    ]
    with tempfile.TemporaryDirectory() as work:  # it leaves a folder where it runs
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) generated", done.stdout)
    return done.returncode, int(found[1]) if found else 0, done.stdout + done.stderr


def main() -> int:
    """Run until enough cases were generated: without a key, then with one of each scope."""
    parser = argparse.ArgumentParser(description="Check a service against its OpenAPI document.")
    parser.add_argument("--gallery", type=Path, required=True, help="an empty directory")
    parser.add_argument("--cases", type=int, default=5000, help="for each key")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = args.gallery / "import" / "a"
    folder.mkdir(parents=True)
    (folder / "x.png").write_bytes(png(pixels_of(3)))
    gallery = build_gallery(args.gallery, count=40)
    keys: list[tuple[str, dict[str, str]]] = [("no key", {})]
    for scope in ("search", "write", "admin"):
        secret = add_key(gallery.root / "keys.json", name=scope, scopes=[scope])[1]
        keys.append((scope, {"Authorization": f"Bearer {secret}"}))
    failures = 0
    with serving(settings_of(gallery, import_root=args.gallery / "import")) as client:
        for name, headers in keys:
            total, turn, wrong = 0, 0, 0
            while total < args.cases:
                status, cases, report = check(str(client.base_url), headers, examples=25, seed=args.seed + turn)
                total, turn = total + cases, turn + 1
                found = re.search(r"found (\d+) unique failures?", report)
                wrong += int(found[1]) if found else 0
                if status:  # a failure of the service, or an error in schemathesis itself, which tells them apart
                    print(report)
                if not cases:
                    return 1
            print(f"{name}: {total} cases in {turn} runs, {wrong} failures", flush=True)
            failures += wrong
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
