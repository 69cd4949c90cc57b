"""What a user installs on other versions of Python: the wheel serves, and the client alone works with what it needs.

`python -m tests.python_versions python3.12 python3.13` takes some minutes. For each interpreter: a fresh environment
with the wheel and its extra `cpu`, in which `eigenlens doctor`, a build of 300 images and the service run; and one with
the wheel alone, whose client searches that service.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.fresh_install import ROOT, build_wheel, eigenlens, install, run, serving
from tests.support.service import image_id, write_encoder, write_images

COUNT = 300


def main() -> None:
    """Try each interpreter that is named, and print what was done."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheel = build_wheel(work)
        encoder, images = write_encoder(work / "encoder"), write_images(work / "images", COUNT)
        for program in sys.argv[1:]:
            started = time.monotonic()
            version = run([program, "--version"], cwd=work).strip()
            try_python(program, work / version.replace(" ", "-"), wheel=wheel, encoder=encoder, images=images)
            print(f"{version}: all of it works, in {time.monotonic() - started:.0f} s", flush=True)


def try_python(program: str, work: Path, *, wheel: Path, encoder: Path, images: Path) -> None:
    """Run everything with one interpreter, below `work`."""
    work.mkdir()
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    full, light = work / "full/bin/python", work / "light/bin/python"
    for python, extra in ((full, "[cpu]"), (light, "")):
        run([program, "-m", "venv", str(python.parents[1])], cwd=work)
        install(python, *constraints, f"{wheel}{extra}")
    gallery = work / "gallery"
    eigenlens(full, work, "build", "--encoder", encoder, "--images", images, "--gallery", gallery)
    assert "no problem was found" in eigenlens(full, work, "doctor", "--gallery", gallery)
    with serving(full, work, gallery) as url:
        image = images / image_id(5)
        answer = json.loads(eigenlens(light, work, "search", image, "--json", "--url", url))
        assert answer["results"][0]["id"] == image_id(5), answer
        eigenlens(light, work, "ready", "--url", url)


if __name__ == "__main__":
    main()
