"""What every test gets: encoders are opened without long trials, as those of the tests take microseconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eigenlens.model.runtime import encoder, sessions


@pytest.fixture(scope="session", autouse=True)
def _short_trials() -> Iterator[None]:
    """Compare runtimes and batch sizes for milliseconds: a service starts in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "_TRIAL_S", 0.005)
        patch.setattr(encoder, "_BATCH_TRIAL_S", 0.002)
        yield
