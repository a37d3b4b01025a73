"""A project's quota of running trials, with real workers that would run more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.store import projects
from app.store.tables import Trial
from tests.store.conftest import Bench
from tests.support.processes import Fleet, over


@pytest.mark.smoke
def test_workers_of_a_project_never_train_more_trials_than_its_quota(
    fleet: Fleet, make_study: Callable[..., Bench]
) -> None:
    benches = [make_study(name=name, trials=30, epochs=2, delay_seconds=0.03) for name in ("first", "second")]
    with fleet.database.write() as session:
        projects.change_project(session, "default", None, {"max_running_trials": 3})
    for _ in range(2):
        fleet.start()
    assert [over(bench) for bench in benches] == ["COMPLETED", "COMPLETED"]
    moments: list[tuple[float, int]] = []
    with fleet.database.read() as session:
        for started, finished in session.execute(select(Trial.started_at, Trial.finished_at)):
            moments += [(started, 1), (finished, -1)]
    running = peak = 0
    for _, step in sorted(moments):
        running += step
        peak = max(peak, running)
    assert (len(moments), running) == (120, 0)
    assert 1 <= peak <= 3
    for bench in benches:
        bench.check()
        assert bench.study().complete == 30
