"""Hard views: the same each time, of the thing and never its mirror image, and as usable as the photograph itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from eigenlens.model.errors import ImageError
from eigenlens.model.images.hard_views import HardViews, hard_view
from eigenlens.model.images.sources import open_source
from tests.support.training import write_images


def test_a_hard_view_is_the_same_each_time_and_another_for_each_image_and_seed(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(folder / name)
    source = open_source(str(folder))
    drawn = [[np.asarray(view.load(32)) for view in HardViews(source, seed=seed)] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0][0], drawn[0][1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert HardViews(source).name != HardViews(source, seed=1).name != source.name


def test_an_image_that_cannot_be_used_has_no_hard_view(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", count=6)
    (images / "kind-0" / "broken.png").write_bytes(b"no image")
    source = open_source(str(images))
    unusable = [
        [image.id for image in s if isinstance(image.load(16), ImageError)] for s in (source, HardViews(source))
    ]
    assert unusable == [["kind-0/broken.png"]] * 2


def test_a_hard_view_is_a_part_of_the_picture_the_right_way_round() -> None:
    across, down = np.meshgrid(np.linspace(0, 200, 90), np.linspace(0, 200, 60))
    picture = Image.fromarray(np.stack([across, down, np.full_like(across, 100)], axis=-1).astype(np.uint8))
    for seed in range(40):
        view = np.asarray(hard_view(picture, np.random.default_rng(seed))).astype(float)
        right, left = view[:, -1, 0].mean(), view[:, 0, 0].mean()
        assert right > left, "red grows to the right"
        assert view[-1, :, 1].mean() > view[0, :, 1].mean(), "green grows downwards"
        assert right - left < 1.4 * 200, "and by less than in the whole, but for contrast"


def test_the_smallest_picture_has_a_hard_view() -> None:
    view = hard_view(Image.new("RGB", (1, 300), (10, 20, 30)), np.random.default_rng(0))
    assert view.width >= 1
    assert view.height >= 8
