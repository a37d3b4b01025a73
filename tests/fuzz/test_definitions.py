"""What the service accepts a worker can run: every trial ends with a result or with a reason that is not our fault."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.study import StudyDefinition
from app.store.engine import Database
from tests.fuzz.definitions import functions, networks
from tests.integration.conftest import RunningService, serving
from tests.support.effort import searching
from tests.support.processes import WorkerProcess, fleet_on, wait_for

OVER = ("COMPLETED", "FAILED")
END_S = 150.0
THEIR_OWN = {"NON_FINITE", "REFUSED", "TIMEOUT", "CANCELLED"}
"""Why a trial of an accepted study may fail: its values, its size, its time limit, or that its study was over."""
COMPLAINTS = ("trainer_lost", "sampler_failed", "keeper_died", "Traceback")
"""What a worker's log must not have."""


@dataclass
class Bench:
    """A service with one worker, and what became of the definitions."""

    service: RunningService
    worker: WorkerProcess
    names: Iterator[int] = field(default_factory=itertools.count)
    seen: Counter[str] = field(default_factory=Counter)

    def run(self, bodies: list[dict[str, Any]]) -> None:
        """Post definitions; every one that is accepted ends as it should."""
        posted = [self.post(body) for body in bodies]
        for study_id in filter(None, posted):
            study = wait_for(lambda key=study_id: self.over(key), END_S, f"the end of {study_id}")
            self.judge(study)
        log = self.worker.log()
        assert not [words for words in COMPLAINTS if words in log], log[-4000:]

    def post(self, body: dict[str, Any]) -> str | None:
        """The id of the new study, or None where its definition is refused."""
        response = self.service.client.post("/v1/studies", json={"name": f"made-{next(self.names)}", **body})
        assert response.status_code in (201, 422), response.text
        self.seen["accepted" if response.status_code == 201 else "refused"] += 1
        if response.status_code == 422:
            assert response.json()["code"] == "INVALID_STUDY"
            return None
        return str(response.json()["id"])

    def over(self, study_id: str) -> dict[str, Any] | None:
        study: dict[str, Any] = self.service.client.get(f"/v1/studies/{study_id}").json()
        assert self.worker.process.poll() is None, self.worker.log()[-4000:]
        return study if study["state"] in OVER else None

    def judge(self, study: dict[str, Any]) -> None:
        """The study's trials ended by themselves, and have what the definition asked for."""
        definition = StudyDefinition.model_validate(study["definition"])
        path = f"/v1/studies/{study['id']}/trials"
        trials = self.service.client.get(path, params={"limit": 1000}).json()["items"]
        told = f"{study['state_reason']}\n{study['definition']}\n"
        own = 0
        for trial in trials:
            self.seen[f"{trial['state']} {trial['reason'] or ''}"] += 1
            assert trial["state"] not in ("WAITING", "RUNNING"), told + str(trial)
            assert trial["reason"] is None or trial["reason"] in THEIR_OWN, told + str(trial)
            own += trial["reason"] in THEIR_OWN - {"CANCELLED"}
            for name, value in trial["sampled"].items():
                assert definition.searched[name].contains(value), told + str(trial)
            if trial["state"] == "COMPLETE":
                assert list(trial["values"]) == [o.metric for o in definition.objectives], told + str(trial)
                assert all(math.isfinite(value) for value in trial["values"].values()), told + str(trial)
        some_ended_well = any(trial["state"] in ("COMPLETE", "PRUNED") for trial in trials)
        assert study["state"] == "COMPLETED" or own >= 10 or (own and not some_ended_well), told
        assert definition.budget.trials is None or len(trials) <= definition.budget.trials, told


@contextmanager
def one_worker(database: Database, folder: Path, family: str) -> Iterator[Bench]:
    """A service and one worker of a family for all definitions of a test."""
    with serving(database, folder) as service, fleet_on(database, folder) as fleet:
        bench = Bench(service, fleet.start(families=family))
        yield bench
        print(dict(bench.seen))
        assert bench.seen["accepted"] > bench.seen["refused"] / 6, bench.seen


@pytest.mark.slow
def test_accepted_studies_of_functions_end_as_they_should(database: Database, tmp_path: Path) -> None:
    with one_worker(database, tmp_path, "function") as bench:

        @searching(5)
        @given(st.lists(functions(), min_size=8, max_size=12))
        def search(bodies: list[dict[str, Any]]) -> None:
            bench.run(bodies)

        search()
        assert bench.seen["COMPLETE "] > 0


@pytest.mark.slow
@pytest.mark.tensorflow
def test_accepted_studies_of_networks_end_as_they_should(sqlite_database: Database, tmp_path: Path) -> None:
    with one_worker(sqlite_database, tmp_path, "mlp") as bench:

        @searching(2)
        @given(st.lists(networks(), min_size=4, max_size=4))
        def search(bodies: list[dict[str, Any]]) -> None:
            bench.run(bodies)

        search()
        assert bench.seen["COMPLETE "] > 0
