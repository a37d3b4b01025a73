"""A real API process for tests, with or without workers below it: killed, stopped and started again at one address."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.store.engine import Database
from tests.support.processes import ROOT, START_S, wait_for

IS_FULL = "CRASH_ROUNDS" in os.environ
"""Whether crash tests run at their full size, as `make crash` does."""
REQUEST_S = 60.0
"""Longest time that a test waits for an answer."""


@dataclass
class ServiceProcess:
    """`fettle api` or `fettle up` on one database and one port, started as often as a test likes."""

    database: Database
    folder: Path
    workers: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=REQUEST_S, trust_env=False)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        log_path = self.folder / f"service-{len(self.logs)}.log"
        self.logs.append(log_path)
        variables = {
            "database_url": self.database.url.render_as_string(hide_password=False),
            "data_dir": self.folder,
            "port": self.port,
            "stream_poll_s": 0.02,
            "families": "function",
        } | self.settings
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}
        environment |= {f"FETTLE_{name.upper()}": str(value) for name, value in variables.items()}
        command = ["up", "--workers", str(self.workers)] if self.workers else ["api"]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *command], env=environment, cwd=ROOT, stdout=log, stderr=log
            )
        wait_for(self._listens, START_S, f"a service at {self.url}")

    def _listens(self) -> bool:
        text = self.logs[-1].read_text(errors="replace")
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {text[-3000:]}"
        return re.search(r"serving at http://", text) is not None

    def kill(self) -> None:
        """SIGKILL, as the kernel out of memory would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.logs)

    def close(self) -> None:
        """End it and what it started."""
        if not self.is_running():
            return
        assert self.process is not None
        tree = psutil.Process(self.process.pid).children(recursive=True)
        self.kill()
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


@contextmanager
def service_on(database: Database, folder: Path, workers: int = 0, **settings: Any) -> Iterator[ServiceProcess]:
    """A started service that ends with the block; pytest shows its logs where a test fails."""
    service = ServiceProcess(database, folder, workers, settings)
    try:
        service.start()
        yield service
    finally:
        service.close()
        for path in service.logs:
            print(f"--- {path.name} ---\n{path.read_text(errors='replace')[-20_000:]}")
