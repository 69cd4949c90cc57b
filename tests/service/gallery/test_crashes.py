"""Killed at random moments of adding, removing, importing, rebuilding and activating: nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crashes import crash
from tests.support.postgres import Server


@pytest.mark.timeout(300)
def test_a_service_killed_at_random_moments_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    model = crash(tmp_path, kills=5, seed=0)
    assert model.acknowledged > 20


@pytest.mark.timeout(300)
def test_a_node_killed_beside_another_loses_nothing_that_it_acknowledged(tmp_path: Path, postgres: Server) -> None:
    model = crash(tmp_path, kills=1, seed=0, nodes=2, store=postgres.new_schema())
    assert model.acknowledged > 3
