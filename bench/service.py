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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_S = 120.0


@dataclass
class Service:
    """A running service: where it answers, and how long `/readyz` took from the start of its process, in seconds."""

    url: str
    ready_s: float
    http: httpx.Client

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

    def run(self, definition: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds from the submission to the end of the study as its event stream tells it, and the study."""
        started = time.perf_counter()
        study = self.http.post("/v1/studies", json=definition).raise_for_status().json()
        with self.http.stream("GET", f"/v1/studies/{study['id']}/events", timeout=None) as stream:
            for line in stream.iter_lines():
                if line == "event: study.finished":
                    break
        seconds = time.perf_counter() - started
        return seconds, self.http.get(f"/v1/studies/{study['id']}").raise_for_status().json()


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
                yield Service(url, time.perf_counter() - started, http)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


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
