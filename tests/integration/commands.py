"""A service of `fettle up` for tests of the commands, and how it is started and ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
DEADLINE_S = 60.0


@dataclass
class Service:
    """A running `fettle up` with its address, its log and its data."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    data: Path

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command that uses this service."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=clean_environment() | {"FETTLE_URL": self.url},
            timeout=120,
        )

    def tree(self) -> list[psutil.Process]:
        """The service's process and all below it."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")}


def until(holds: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return found


def start(data: Path, log: Path, *options: str) -> Service:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "up", "--port", "0", "--data-dir", str(data), "--device", "cpu", *options],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env=clean_environment() | {"FETTLE_DRAIN_GRACE_S": "5"},
        )

    def address() -> str | None:
        text = log.read_text(errors="replace")
        assert process.poll() is None, f"ended with {process.returncode}: {text[-3000:]}"
        found = re.search(r"serving at (http://\S+)", text)
        return found[1] if found else None

    return Service(process, until(address, "an address", START_S), log, data)


def end(service: Service) -> None:
    if service.process.poll() is None:
        tree = service.tree()
        service.process.send_signal(signal.SIGTERM)
        try:
            service.process.wait(60)
        except subprocess.TimeoutExpired:
            for process in tree:
                process.kill()
            service.process.wait()


def sphere(name: str, trials: int = 5, delay_s: float = 0.0, **more: object) -> dict[str, Any]:
    """A tiny study without TensorFlow."""
    return {
        "name": name,
        "model": {"family": "function"},
        "hyperparameters": {
            "function": "sphere",
            "delay_seconds": delay_s,
            "x0": {"type": "float", "low": -5, "high": 5},
        },
        "training": {"epochs": 2},
        "objectives": [{"metric": "value", "direction": "minimize"}],
        "sampler": {"name": "random", "options": {"seed": 1}},
        "budget": {"trials": trials},
        **more,
    }
