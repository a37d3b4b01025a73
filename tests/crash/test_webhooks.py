"""An API process that is killed while it delivers: another one goes on, and no event is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.store.engine import Database
from tests.store.conftest import Bench
from tests.support.processes import ROOT, wait_for
from tests.support.receiver import Received, receiving

TIMEOUT_S = 2.0


@contextmanager
def api_process(database: Database, folder: Path, name: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A real `fettle api` on a free port, whose webhooks may reach this machine."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
    environment |= {
        "FETTLE_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "FETTLE_DATA_DIR": str(folder),
        "FETTLE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        "FETTLE_WEBHOOK_TIMEOUT_S": str(TIMEOUT_S),
        "FETTLE_WEBHOOK_RETRY_S": "0.1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    path = folder / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "api", "--port", "0"], env=environment, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        address = wait_for(lambda: _address(path), 60, f"an address in {path.name}")
        with httpx.Client(base_url=address, timeout=20) as client:
            wait_for(lambda: client.get("/healthz").status_code == 200, 60)
            yield process, client
    finally:
        process.kill()
        process.wait()
        print(f"--- {path.name} ---\n{path.read_text()}")


def _address(path: Path) -> str | None:
    words = path.read_text().split()
    return next((word.rstrip("/.,") for word in words if word.startswith("http://127.0.0.1:")), None)


def test_another_process_goes_on_where_a_killed_one_was_delivering(
    database: Database, tmp_path: Path, make_bench: Callable[..., Bench]
) -> None:
    killed = threading.Event()
    stuck = threading.Event()

    def answer(_: Received) -> int:
        if not killed.is_set():
            stuck.set()
            killed.wait(60)  # the first process dies while it waits for this
        return 204

    with receiving(answer=answer) as receiver, api_process(database, tmp_path, "one") as (first, client):
        created = client.post("/v1/webhooks", json={"url": receiver.url}).json()
        bench = make_bench()
        assert stuck.wait(60)
        with api_process(database, tmp_path, "two"):
            first.send_signal(signal.SIGKILL)
            first.wait()
            killed.set()
            for reservation in bench.running(3):
                bench.finish(reservation)
            wait_for(lambda: receiver.kinds()[-1:] == bench.kinds()[-1:], 60, "the last event")
        assert [e["seq"] for e in receiver.events()] == list(range(1, len(bench.kinds()) + 1))
        assert receiver.received[0].id == receiver.received[1].id, "what was under way came again under its id"
        assert receiver.received[0].body == receiver.received[1].body
        assert all(request.is_signed_with(created["secret"]) for request in receiver.received)
