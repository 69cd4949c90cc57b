"""Killed at random moments of adding, removing, rebuilding and activating: nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crashes import crash


@pytest.mark.timeout(300)
def test_a_service_killed_at_random_moments_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    model = crash(tmp_path, kills=5, seed=0)
    assert model.acknowledged > 20
