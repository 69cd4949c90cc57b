"""The benchmarks of duplicates: what is planted, how far groups agree with it, and a join beside all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from eigenlens.benchmarks.duplicates.agreement import agreement
from eigenlens.benchmarks.duplicates.join import measure_join
from eigenlens.benchmarks.duplicates.planted import write_planted


def test_planted_duplicates_are_told_from_what_is_found(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photographs / f"{number}.png")
    write_planted(tmp_path / "planted", str(photographs), count=18, groups=2, seed=0)
    names = sorted(path.name for path in (tmp_path / "planted").iterdir())
    assert len(names) == 18
    assert sum("single" in name for name in names) == 4
    first = [name for name in names if name.startswith("00000-")]
    copies = {name: (tmp_path / "planted" / name).read_bytes() for name in first}
    assert copies["00000-copied.png"] == copies["00000-original.png"]
    assert len(set(copies.values())) == len(first) - 1
    # All of the first group; of the second the original and one copy, with an image that is in no group.
    shares = agreement([first, ["00001-original.png", "00001-mirrored.png", "00003-single.png"]], 2)
    assert (shares["precision"], shares["recall"], shares["whole"]) == (0.5, 1, 0.5)
    assert (shares["recall mirrored"], shares["recall cropped"]) == (1, 0.5)


def test_a_join_of_codes_has_the_groups_of_all_pairs() -> None:
    measured = {name: value for name, (value, _) in measure_join(4000, cosine=0.98, seed=0).items()}
    assert measured["same_groups"] == measured["planted_recall"] == 1
    assert measured["sample_groups"] >= 40
    assert 0 < measured["compared_share"] < 1
