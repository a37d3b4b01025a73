"""Code of different releases on one database: it goes on where that is safe, and refuses in words where it isn't."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.engine import Database
from app.store.migrate import HEAD, schema_revision
from tests.integration.conftest import RunningService, function_study
from tests.store.conftest import Bench
from tests.store.revisions import REVISIONS, contents, fill, scripts, shape
from tests.support.processes import Fleet, fleet_on, over, wait_for
from tests.support.trees import ADDED, NEXT, Tree, newer, older

DEADLINE_S = 90.0


@dataclass
class Others:
    """Processes of other releases on one database."""

    database: Database
    folder: Path
    started: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        url = self.database.url.render_as_string(hide_password=False)
        return {"database_url": url, "data_dir": self.folder, "families": "function", "drain_grace_s": 0}

    def start(self, tree: Tree, module: str, *arguments: str, **settings: Any) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.folder / f"other-{len(self.started)}.log"
        self.started.append((tree.start(log, module, *arguments, **self.settings | settings), log))
        return self.started[-1]

    def serve(self, tree: Tree) -> str:
        _, log = self.start(tree, "app", "api", "--no-migrate", "--port", "0")
        found = wait_for(lambda: re.search(r"serving at (http://\S+)", log.read_text()), DEADLINE_S, "a newer API")
        return str(found[1])

    def migrate(self, tree: Tree, *arguments: str) -> str:
        ran = tree.run("migrate", *arguments, **self.settings)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_on(database, tmp_path) as workers:
        yield workers


@pytest.fixture
def others(database: Database, tmp_path: Path) -> Iterator[Others]:
    found = Others(database, tmp_path)
    yield found
    for process, log in found.started:
        process.kill()
        process.wait()
        print(f"--- {log.name} ---\n{log.read_text()}")


@pytest.fixture
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tree")


def bench_of(database: Database, study: dict[str, Any]) -> Bench:
    with database.read() as session:
        from app.store.studies import find_study

        return Bench(database, find_study(session, "default", study["id"]).id, study["id"])


def slow(**changes: Any) -> dict[str, Any]:
    """A study that goes on until it is stopped."""
    values = {"function": "sphere", "x0": {"type": "float", "low": -5.0, "high": 5.0}, "delay_seconds": 0.1}
    return {
        "hyperparameters": values, "budget": {"trials": 50_000}, "training": {"epochs": 2},
        "execution": {"parallel_trials": 2},
    } | changes  # fmt: skip


def test_workers_and_an_api_go_on_while_a_newer_release_moves_in(
    service: RunningService, fleet: Fleet, others: Others, tree: Path
) -> None:
    release = newer(tree, keeps_old_code=True)
    # Room for two workers: one that fills the cap keeps it, since its ends reserve what comes next.
    study = service.create(**slow(execution={"parallel_trials": 100}))
    bench = bench_of(service.database, study)
    old = fleet.start()
    wait_for(lambda: bench.study().complete >= 4, DEADLINE_S, "trials of the old worker")
    assert f"revision {NEXT}" in others.migrate(release)
    url = others.serve(release)
    done = bench.study().complete
    wait_for(lambda: bench.study().complete >= done + 8, DEADLINE_S, "more trials of the old worker")
    assert old.process.poll() is None, old.log()
    assert service.client.get("/readyz").status_code == 200
    others.start(release, "worker")
    with httpx.Client(base_url=url, timeout=20) as client:
        wait_for(lambda: len(client.get("/v1/workers").json()["items"]) == 2, DEADLINE_S, "the new worker")
        wait_for(lambda: len({t.worker_id for t in bench.trials()} - {None}) == 2, DEADLINE_S, "trials of both")
        young = fleet.start()  # an old one that comes after the upgrade
        wait_for(lambda: "worker_started" in young.log(), DEADLINE_S, "an old worker on the new schema")
        assert client.post(f"/v1/studies/{study['id']}:stop").status_code == 200
        assert over(bench, DEADLINE_S) == "STOPPED"
        of_both = [c.get(f"/v1/studies/{study['id']}").json()["progress"] for c in (client, service.client)]
        assert of_both[0] == of_both[1]
        assert max(t.attempt for t in bench.trials()) == 1, "nobody lost a lease"
    bench.check()


def test_a_schema_that_old_code_doesnt_fit_ends_it_in_words_and_back_it_goes_on(
    service: RunningService, fleet: Fleet, others: Others, tree: Path
) -> None:
    release = newer(tree, keeps_old_code=False)
    study = service.create(**slow(execution={"parallel_trials": 2, "max_attempts": 9}))
    bench = bench_of(service.database, study)
    old = fleet.start(lease_ttl_s=2)
    wait_for(lambda: bench.study().complete >= 2, DEADLINE_S, "trials of the old worker")
    others.migrate(release)
    assert old.wait(DEADLINE_S) == 2
    assert f"Received {NEXT}, which a newer Fettle wrote" in old.log()
    refused = wait_for(lambda: _unready(service.client, "/readyz"), DEADLINE_S, "503")
    assert NEXT in refused["detail"]
    assert "upgrade this process" in refused["detail"]
    # /readyz looks by itself, all else by what was seen in the last seconds.
    wait_for(lambda: _unready(service.client, "/v1/studies"), DEADLINE_S, "503 on all else")
    assert service.client.get("/healthz").status_code == 200
    late = fleet.start()
    assert late.wait(DEADLINE_S) == 2, "at once, without waiting for what doesn't come"

    held = release.run("migrate", "--to", HEAD, "--allow-loss", **others.settings)
    assert held.returncode == 2, "the API has it open, and the worker was there a moment ago"
    assert "--force" in held.stderr
    others.migrate(release, "--to", HEAD, "--allow-loss", "--force")
    wait_for(lambda: service.client.get("/readyz").status_code == 200, DEADLINE_S, "the API back")
    done = bench.study().complete
    fleet.start(lease_ttl_s=2)
    wait_for(lambda: bench.study().complete >= done + 6, DEADLINE_S, "trials after the way back")
    assert service.client.post(f"/v1/studies/{study['id']}:stop").status_code == 200
    assert over(bench, DEADLINE_S) == "STOPPED"
    bench.check()


def _unready(client: httpx.Client, path: str) -> dict[str, Any] | None:
    answer = client.get(path)
    if answer.status_code != 503:
        return None
    found: dict[str, Any] = answer.json()
    return found if found["code"] == "UNREADY" and "newer Fettle" in found["detail"] else None


def test_newer_code_waits_for_the_migration_and_refuses_in_words_without(
    database: Database, others: Others, tree: Path
) -> None:
    release = newer(tree, keeps_old_code=True)
    for module, arguments in (("worker", ()), ("app", ("api", "--no-migrate", "--port", "0"))):
        process, log = others.start(release, module, *arguments, database_wait_s=0.2)
        assert process.wait(DEADLINE_S) == 2
        assert (
            f"Expected the database at schema revision {NEXT}. Received {HEAD}: run `fettle migrate`" in log.read_text()
        )
    process, log = others.start(release, "worker", database_wait_s=600)
    wait_for(lambda: "database_awaited" in log.read_text(), DEADLINE_S, "the wait")
    others.migrate(release)
    wait_for(lambda: "worker_started" in log.read_text(), DEADLINE_S, "the worker, after the migration")
    check = release.run("check", **others.settings)
    assert (check.returncode, NEXT in check.stdout) == (0, True)


def test_the_release_before_this_one_runs_here_or_refuses_as_the_last_migration_says(
    database: Database, others: Others, tree: Path
) -> None:
    release = older(tree)
    said = getattr(scripts()[HEAD], "compatible_from", HEAD)
    check, migration = release.run("check", **others.settings), release.run("migrate", **others.settings)
    process, log = others.start(release, "worker", database_wait_s=600)
    if said <= REVISIONS[-2]:
        assert (check.returncode, migration.returncode) == (0, 0)
        wait_for(lambda: "worker_started" in log.read_text(), DEADLINE_S, "the older worker")
    else:
        assert (check.returncode, migration.returncode, process.wait(DEADLINE_S)) == (2, 2, 2)
        for words in (check.stderr, migration.stderr, log.read_text()):
            assert f"Received {HEAD}, which a newer Fettle wrote" in words
            assert "Traceback" not in words
    with database.read() as session:
        assert schema_revision(session.connection()) == HEAD


def test_studies_of_a_newer_release_are_left_alone_by_old_workers_and_say_so(
    service: RunningService, fleet: Fleet, others: Others, tree: Path
) -> None:
    release = newer(tree, keeps_old_code=True)
    seed = "    seed: Seed = 0\n"
    added = "    sharpness: Annotated[int | None, _WHERE_GIVEN] = None\n"
    release.change("app/domain/study.py", {f"{seed}    precision": f"{seed}{added}    precision"})
    more = '    "random": _Offer(RandomOptions, "Inde'
    named = '    "uniform": _Offer(RandomOptions, "The same by another name.", learns=False),\n'
    release.change("app/tuning/samplers.py", {more: named + more})
    others.migrate(release)
    url = others.serve(release)
    old = fleet.start()
    with httpx.Client(base_url=url, timeout=20) as client:
        made = []
        for change in ({"training": {"epochs": 1, "sharpness": 2}}, {"sampler": {"name": "uniform"}}):
            answer = client.post("/v1/studies", json=function_study(name=f"new-{len(made)}", **change))
            assert answer.status_code == 201, answer.text
            made.append(answer.json()["id"])
        plain = service.create(name="plain")  # a definition of this release, by this release's API
        assert over(bench_of(service.database, plain), DEADLINE_S) == "COMPLETED"
        for one, words in zip(made, ("sharpness", "uniform"), strict=True):
            for asked in (client, service.client):
                reason = wait_for(lambda c=asked, i=one: _reason(c, i), DEADLINE_S, "a pending_reason")
                assert words in reason
            _stays_readable(service, one)
        refused = service.client.patch(f"/v1/studies/{made[0]}", json={"budget": {"trials": 99}})
        assert (refused.status_code, refused.json()["code"]) == (409, "DEFINITION_TOO_NEW")
        assert old.process.poll() is None
        assert old.log().count("study_left_alone") == 2, "once a study, not at each look"
        others.start(release, "worker")
        for one in made:
            bench = bench_of(service.database, {"id": one})
            assert over(bench, DEADLINE_S) == "COMPLETED"
            assert {(t.state, t.attempt) for t in bench.trials()} == {("COMPLETE", 1)}
            bench.check()
    assert old.process.poll() is None


def _reason(client: httpx.Client, study: str) -> str | None:
    reason = client.get(f"/v1/studies/{study}").json()["pending_reason"]
    return reason if reason and "can read the study: upgrade them" in reason else None


def _stays_readable(service: RunningService, study: str) -> None:
    """This release's API serves a study that it can't read, and refuses in words what it would have to read it for."""
    get = service.client.get
    for path in (
        "",
        "/trials",
        "/events?follow=false",
        "/best",
        "/plots/history",
        "/importances",
        "/export",
        "/report",
    ):
        answer = get(f"/v1/studies/{study}{path}")
        assert answer.status_code < 500, (path, answer.text)
    assert study in {found["id"] for found in get("/v1/studies").json()["items"]}
    for action in ("pause", "resume"):
        assert service.client.post(f"/v1/studies/{study}:{action}").status_code == 200


def test_a_migration_that_fails_in_its_middle_leaves_everything_as_it_was(
    database: Database, others: Others, tree: Path
) -> None:
    fill(database)
    before = contents(database), shape(database)
    release = newer(
        tree,
        keeps_old_code=True,
        upgrade=f'{ADDED}\nop.execute("DELETE FROM fettle_events")\nraise OSError("power cut")',
    )
    ran = release.run("migrate", **others.settings)
    assert ran.returncode == 1
    assert "power cut" in ran.stderr
    assert (contents(database), shape(database)) == before
    with database.read() as session:
        assert schema_revision(session.connection()) == HEAD
