"""Studies of the family `function` on both databases, run by real worker processes.

`CRASH_ROUNDS=20` (`make crash N=20`) runs every test of this folder twenty times: what a crash leaves behind depends on
the moment, and one moment proves little. With `CRASH_RECORD`, a file, each case that ended is noted there, those that
stand there already are left out, and the rounds come one after another: such a run may be cut off, and gone on with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.store.engine import Database
from tests.crash import record
from tests.store.conftest import Bench, make_bench  # noqa: F401
from tests.support.places import places  # noqa: F401
from tests.support.processes import Fleet, fleet_on

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))
RECORD = Path(os.environ["CRASH_RECORD"]) if ROUNDS > 1 and os.environ.get("CRASH_RECORD") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of this folder once a round."""
    if ROUNDS > 1:
        metafunc.fixturenames.append("crash_round")
        metafunc.parametrize("crash_round", range(1, ROUNDS + 1), ids=lambda number: f"round{number}")


def pytest_configure(config: pytest.Config) -> None:
    """One process records, and tells the others what was recorded before."""
    if RECORD is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(record.Recorder(RECORD))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The rounds in their order, without what was seen before."""
    if RECORD is None:
        return
    told = getattr(config, "workerinput", {}).get(record.SEEN)
    seen = [(o.number, o.case) for o in record.read(RECORD)] if told is None else [(n, case) for n, case in told]
    by_id = {item.nodeid: item for item in items}
    chosen = record.chosen(by_id, seen)
    config.hook.pytest_deselected(items=[by_id[nodeid] for nodeid in by_id.keys() - set(chosen)])
    items[:] = [by_id[nodeid] for nodeid in chosen]


@pytest.fixture
def crash_round(request: pytest.FixtureRequest) -> int:
    """Which round it is, from 1; without `CRASH_ROUNDS` there is but one."""
    return int(getattr(request, "param", 1))


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
