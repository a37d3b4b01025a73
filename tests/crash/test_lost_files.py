"""The file of an SQLite database deleted, moved or replaced under a service that works with it.

What such a file takes is lost, so nothing may be told as done from then on; and a file that comes back is taken up.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.store.engine import Database
from app.store.migrate import migrate
from app.store.tables import Study
from tests.integration.conftest import function_study
from tests.support.processes import fleet_on, wait_for
from tests.support.services import ServiceProcess, service_on

NOTICED_S = 60.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service with one worker on an SQLite file of its own."""
    database = Database(f"sqlite:///{tmp_path / 'data' / 'fettle.db'}")
    (tmp_path / "data").mkdir()
    migrate(database)
    database.dispose()
    with service_on(database, tmp_path, workers=1, drain_grace_s=1) as service:
        yield service


def file_of(service: ServiceProcess) -> Path:
    return Path(str(service.database.url.database))


def another(folder: Path) -> Path:
    """The file of another database, which is closed."""
    path = folder / "another.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.dispose()
    return path


def delete(file: Path, _folder: Path) -> None:
    file.unlink()


def move_folder(file: Path, _folder: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))


def replace(file: Path, folder: Path) -> None:
    another(folder).replace(file)


def write_over(file: Path, folder: Path) -> None:
    shutil.copyfile(another(folder), file)


def empty(file: Path, _folder: Path) -> None:
    with file.open("wb"):
        pass


def delete_log(file: Path, _folder: Path) -> None:
    Path(f"{file}-wal").unlink()


def delete_index(file: Path, _folder: Path) -> None:
    Path(f"{file}-shm").unlink()


class Submitters:
    """Threads that submit studies, and remember of each when it was begun and whether it was acknowledged."""

    def __init__(self, service: ServiceProcess, threads: int = 3) -> None:
        self.answers: list[tuple[float, int, str]] = []
        self._service = service
        self._names = count()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._submit) for _ in range(threads)]

    def __enter__(self) -> Submitters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def acknowledged(self) -> list[tuple[float, str]]:
        return [(begun, name) for begun, status, name in list(self.answers) if status == 201]

    def refused(self, since: float) -> list[int]:
        return [status for begun, status, _ in list(self.answers) if status != 201 and begun > since]

    def _submit(self) -> None:
        with self._service.client() as client:
            while not self._ended.is_set():
                name, begun = f"load-{next(self._names)}", time.monotonic()
                sent = client.post("/v1/studies", json=function_study(name=name, execution=NOWHERE))
                self.answers.append((begun, sent.status_code, name))


NOWHERE = {"worker_labels": {"nobody": "here"}}


def problem(client: httpx.Client, path: str = "/readyz") -> dict[str, Any]:
    told: dict[str, Any] = client.get(path).json()
    return told


@pytest.mark.parametrize(
    "mishap", [delete, move_folder, replace, write_over, empty, delete_log, delete_index], ids=lambda f: f.__name__
)
def test_nothing_is_told_as_done_once_the_file_is_not_the_one_at_its_path(
    service: ServiceProcess, tmp_path: Path, mishap: Callable[[Path, Path], None]
) -> None:
    with service.client() as client, Submitters(service) as load:
        wait_for(lambda: len(load.acknowledged()) >= 10, NOTICED_S, "studies")
        mishap(file_of(service), tmp_path)
        after = time.monotonic()
        wait_for(lambda: len(load.refused(after)) >= 30, NOTICED_S, "refusals")
        assert set(load.refused(after)) == {503}
        late = [name for begun, name in load.acknowledged() if begun > after]
        assert late == []
        told = problem(client)
        assert (told["status"], told["code"]) == (503, "UNREADY")
        assert "deleted, moved or replaced" in told["detail"]
        assert str(tmp_path) not in told["detail"]
        assert client.get("/healthz").status_code == 200
        wait_for(lambda: "database_moved" in service.log(), NOTICED_S, "a line of the log")
        wait_for(lambda: problem(client, "/v1/studies").get("code") == "UNREADY", NOTICED_S, "reads refused")
    assert service.log().count("database_moved") == 1


def test_a_file_that_comes_back_is_taken_up_and_nothing_that_was_acknowledged_is_missing(
    service: ServiceProcess, tmp_path: Path
) -> None:
    file = file_of(service)
    wait_for(lambda: "worker_started" in service.log(), NOTICED_S, "a worker")
    with service.client() as client, Submitters(service) as load:
        wait_for(lambda: len(load.acknowledged()) >= 10, NOTICED_S, "studies")
        file.rename(tmp_path / "aside.db")
        wait_for(lambda: problem(client).get("code") == "UNREADY", NOTICED_S, "readiness gone")
        wait_for(lambda: re.search("database_(unreachable|gone)", service.log()), NOTICED_S, "the worker's word")
        assert not file.exists(), "nobody may make another"
        (tmp_path / "aside.db").rename(file)
        back = time.monotonic()
        wait_for(lambda: client.get("/readyz").status_code == 200, NOTICED_S, "readiness")
        wait_for(lambda: [1 for begun, _ in load.acknowledged() if begun > back], NOTICED_S, "studies again")
        done = client.post("/v1/studies", json=function_study(name="trained"))
        assert done.status_code == 201
        where = f"/v1/studies/{done.json()['id']}"
        wait_for(lambda: client.get(where).json()["state"] == "COMPLETED", NOTICED_S, "the worker's work")
    database = Database(f"sqlite:///{file}")
    with database.read() as session:
        there = set(session.scalars(select(Study.name)))
    database.dispose()
    assert {name for _, name in load.acknowledged()} <= there


def test_a_restarted_service_works_with_the_file_that_is_there_now(service: ServiceProcess, tmp_path: Path) -> None:
    with service.client() as client:
        first = client.post("/v1/studies", json=function_study(name="first", execution=NOWHERE))
        assert first.status_code == 201
        replace(file_of(service), tmp_path)
        wait_for(lambda: problem(client).get("code") == "UNREADY", NOTICED_S, "readiness gone")
        assert service.terminate() == 0
        for ending in ("-wal", "-shm"):
            Path(f"{file_of(service)}{ending}").unlink(missing_ok=True)
        service.start()
        wait_for(lambda: client.get("/readyz").status_code == 200, NOTICED_S, "readiness")
        assert client.get("/v1/studies").json()["items"] == []
        done = client.post("/v1/studies", json=function_study(name="second"))
        where = f"/v1/studies/{done.json()['id']}"
        wait_for(lambda: client.get(where).json()["state"] == "COMPLETED", NOTICED_S, "a worker on the new file")


def test_a_worker_that_comes_before_the_file_does_not_make_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "later.db"
    database = Database(f"sqlite:///{file}")
    with fleet_on(database, tmp_path) as fleet:
        worker = fleet.start()
        wait_for(lambda: "database_awaited" in worker.log(), NOTICED_S, "a wait")
        assert not file.exists()
        migrate(database)
        wait_for(lambda: "worker_started" in worker.log(), NOTICED_S, "a start")
    database.dispose()
