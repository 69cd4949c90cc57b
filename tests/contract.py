"""Schemathesis over the OpenAPI document of a running service, with all of its checks.

HEAD is among the calls, half of the bodies are in gzip, and every other run goes below the path of a reverse proxy.
`python -m tests.contract --gallery DIR --cases 5000` runs it as long as wanted; the suite runs a short form.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eigenlens.service.keys import add_key
from tests.support.service import build_gallery, pixels_of, png, serving, settings_of

_CONFIG = Path(__file__).parent / "schemathesis.toml"


_HOOKS = Path(__file__).parent / "support" / "schemathesis_hooks.py"
_ROOT_PATH = "/photos"
_KEYS = ("none", "search", "write", "admin")
# The document is made when it is first asked for, which takes long beside other work on the same cores.
_DOCUMENT_S = 120


@dataclass
class Report:
    """What came of one run: its exit status, generated cases, requests of each sort, and what it printed."""

    status: int
    cases: int
    requests: Counter[str]
    text: str

    @property
    def failures(self) -> int:
        """How many failures it names; what made it end without naming one counts as one."""
        named = re.search(r"found (\d+) unique failures?", self.text)
        return int(named[1]) if named else int(self.status != 0)


def check(url: str, headers: dict[str, str], *, examples: int, seed: int = 0, more: Sequence[str] = ()) -> Report:
    """Run at most `examples` cases of each kind and call against the service at `url`, which may end in a path."""
    given = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file",
        str(_CONFIG),
        "--no-color",
        "run",
        f"{url}/openapi.json",
        f"--url={url}",
        f"--wait-for-schema={_DOCUMENT_S}",
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
        counts = Path(work) / "counts.json"
        variables = {"SCHEMATHESIS_HOOKS": str(_HOOKS), "COUNTS_FILE": str(counts)}
        done = subprocess.run(
            command, cwd=work, env={**os.environ, **variables}, capture_output=True, text=True, check=False
        )
        requests = Counter(json.loads(counts.read_text())) if counts.exists() else Counter()
    generated = re.search(r"(\d+) generated", done.stdout)
    return Report(done.returncode, int(generated[1]) if generated else 0, requests, done.stdout + done.stderr)


def main() -> int:
    """Run until enough cases were generated: without a key, then with one of each scope."""
    parser = argparse.ArgumentParser(description="Check a service against its OpenAPI document.")
    parser.add_argument("--gallery", type=Path, required=True, help="an empty directory")
    parser.add_argument("--cases", type=int, default=5000, help="for each key")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keys", nargs="+", choices=_KEYS, default=_KEYS, help="which of them (default: one after another)"
    )
    args = parser.parse_args()
    folder = args.gallery / "import" / "a"
    folder.mkdir(parents=True)
    (folder / "x.png").write_bytes(png(pixels_of(3)))
    gallery = build_gallery(args.gallery, count=40)
    keys: dict[str, dict[str, str]] = {"none": {}}
    for scope in _KEYS[1:]:
        secret = add_key(gallery.root / "keys.json", name=scope, scopes=[scope])[1]
        keys[scope] = {"Authorization": f"Bearer {secret}"}
    failures = 0
    settings = settings_of(gallery, import_root=args.gallery / "import", root_path=_ROOT_PATH)
    with serving(settings) as client:
        client.get("/openapi.json", timeout=_DOCUMENT_S).raise_for_status()
        url = str(client.base_url).rstrip("/")
        for name in args.keys:
            headers, began = keys[name], time.monotonic()
            total, turn, wrong, requests = 0, 0, 0, Counter[str]()
            while total < args.cases:
                address = f"{url}{_ROOT_PATH}" if turn % 2 else url
                report = check(address, headers, examples=25, seed=args.seed + turn)
                total, turn = total + report.cases, turn + 1
                wrong += report.failures
                requests += report.requests
                requests["below a path"] += report.cases if turn % 2 == 0 else 0
                if report.status:  # a failure of the service, or an error in schemathesis, which tells them apart
                    print(report.text)
                if not report.cases:
                    return 1
                print(f"{name}: {total} cases in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            sorts = ", ".join(f"{count} {sort}" for sort, count in sorted(requests.items()))
            print(f"{name}: {total} cases in {turn} runs ({sorts}), {wrong} failures", flush=True)
            failures += wrong
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
