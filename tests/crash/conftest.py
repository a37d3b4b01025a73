"""Studies of the family `function` on both databases, run by real worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.engine import Database
from tests.processes import Fleet, fleet_on
from tests.store.conftest import Bench, make_bench  # noqa: F401


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Iterator[Fleet]:
    """Workers on the test's database."""
    with fleet_on(database, tmp_path) as fleet:
        yield fleet


@pytest.fixture
def make_study(make_bench: Callable[..., Bench]) -> Callable[..., Bench]:  # noqa: F811
    """Makes a `function` study whose epochs take `delay_seconds` each."""

    def make(*, trials: int = 1, epochs: int = 5, delay_seconds: float = 0.0, **changes: Any) -> Bench:
        body: dict[str, Any] = {
            "hyperparameters": {"x0": {"type": "float", "low": -1.0, "high": 1.0}, "delay_seconds": delay_seconds},
            "training": {"epochs": epochs, "select_epoch": "last"},
            "sampler": {"name": "random"},
            "budget": {"trials": trials},
        }
        return make_bench(**(body | changes))

    return make
