"""Print the bill of materials of the image that this runs in: its Python and Debian packages, as CycloneDX 1.5 JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote

Component = dict[str, object]


def python_packages() -> Iterator[Component]:
    """Yield the installed distributions."""
    for distribution in distributions():
        metadata, version = distribution.metadata, distribution.version
        name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()
        licence = metadata["License-Expression"] or metadata["License"] or ""
        yield _component(name, version, f"pkg:pypi/{name}@{quote(version)}", licence.splitlines()[:1])


def debian_packages(status: Path) -> Iterator[Component]:
    """Yield the installed packages that dpkg's status file lists; none where there is no such file."""
    for entry in status.read_text().split("\n\n") if status.exists() else []:
        fields = dict(re.findall(r"^([\w-]+): (.*)$", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
            yield _component(name, version, f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}", [])


def _component(name: str, version: str, purl: str, licences: list[str]) -> Component:
    component: Component = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
    if licences:
        component["licenses"] = [{"license": {"name": licences[0][:200]}}]
    return component


if __name__ == "__main__":
    status = Path(sys.argv[1] if len(sys.argv) > 1 else "/var/lib/dpkg/status")
    components = [*python_packages(), *debian_packages(status)]
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}
    print(json.dumps(bill | {"components": sorted(components, key=lambda component: str(component["purl"]))}, indent=1))
