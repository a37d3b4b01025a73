"""A real service for a benchmark: `fettle up` on a free port and a fresh data directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from bench.measure import Usage, processes, usage_of

START_S = 120.0
POLL_S = 0.2
"""How often a running study is looked at. Times come from the service's own record, so they are not rounded to it."""
STOP_S = 60.0
PAGE = 1000


@dataclass
class Service:
    """A running service: where it answers, and how long `/readyz` took from the start of its process, in seconds."""

    url: str
    ready_s: float
    http: httpx.Client
    pid: int

    def wait_for_trainer(self) -> None:
        """Return once its worker's trainer has TensorFlow imported: a one-trial study has run through it."""
        definition = {
            "name": "warm-up",
            "model": {"family": "mlp"},
            "dataset": {"name": "wine"},
            "hyperparameters": {"hidden_layers": 0},
            "training": {"epochs": 1},
            "objectives": [{"metric": "val_loss"}],
            "sampler": {"name": "random"},
            "budget": {"trials": 1},
        }
        self.run(definition)

    def usage(self) -> AbstractContextManager[Usage]:
        """A context: what all of the service's processes use in it."""
        return usage_of(self.pid)

    def submit(self, definition: dict[str, Any]) -> str:
        """The id of a new study.

        Raises:
            RuntimeError: the service refused it; the message has its answer.
        """
        answer = self.http.post("/v1/studies", json=definition)
        if answer.status_code != 201:
            raise RuntimeError(f"Expected a study to be accepted. Received: {answer.status_code} {answer.text[:1000]}")
        return str(answer.json()["id"])

    def study(self, study_id: str) -> dict[str, Any]:
        """The study as it is now."""
        found: dict[str, Any] = self.http.get(f"/v1/studies/{study_id}").raise_for_status().json()
        return found

    def run(self, definition: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds from the submission to the end of the study by the service's record, and the study.

        Raises:
            RuntimeError: the service refused it, or it ended otherwise than COMPLETED.
        """
        submitted = time.time()
        study_id = self.submit(definition)
        while (found := self.study(study_id))["finished_at"] is None:
            time.sleep(POLL_S)
        if found["state"] != "COMPLETED":
            raise RuntimeError(f"Expected the study to complete. Received: {found['state']}: {found['state_reason']}")
        return seconds(found["finished_at"]) - submitted, found

    def trials(self, study_id: str, **filters: Any) -> list[dict[str, Any]]:
        """All trials of a study, page by page."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            parameters = {"limit": PAGE} | filters | cursor
            page = self.http.get(f"/v1/studies/{study_id}/trials", params=parameters).raise_for_status().json()
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    def trainers(self) -> dict[int, float]:
        """Resident memory of its trainers by process id, in MB."""
        found = {}
        for process in processes(self.pid):
            with process.oneshot():
                if any("worker.trainer" in word for word in process.cmdline()):
                    found[process.pid] = process.memory_info().rss / 1e6
        return found


def seconds(at: str) -> float:
    """A time of the contract, RFC 3339, as seconds since 1970."""
    return datetime.fromisoformat(at).timestamp()


@contextmanager
def service(data_dir: Path | None = None, workers: int = 1, **settings: Any) -> Iterator[Service]:
    """`fettle up` with an empty data directory, or the one given; stopped at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as folder:
        command = [sys.executable, "-m", "app", "up", "--port", "0", "--workers", str(workers)]
        command += ["--data-dir", str(data_dir or folder)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
        environment |= {f"FETTLE_{name.upper()}": str(value) for name, value in settings.items()}
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            url = _printed_url(process)
            with httpx.Client(base_url=url, timeout=60) as http:
                while True:
                    try:
                        if http.get("/readyz").status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    if time.perf_counter() - started > START_S:
                        raise TimeoutError(f"Expected {url}/readyz within {START_S:g} s.")
                    time.sleep(0.01)
                yield Service(url, time.perf_counter() - started, http, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _printed_url(process: subprocess.Popen[str]) -> str:
    """The address in what the service prints; the rest of its output is read and dropped."""
    if process.stdout is None:
        raise RuntimeError("Expected a pipe from the service.")
    lines = []
    for line in process.stdout:
        lines.append(line)
        found = re.search(r"http://[\d.]+:\d+", line)
        if found:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found.group()
    raise RuntimeError(f"Expected an address from `fettle up`. Received: {''.join(lines)}")
