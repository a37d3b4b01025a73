"""What a peer's script says on stdout: one JSON line when its clock starts, one with its figures at the end."""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bench.works import WORKS, Work

PACKAGES = ("tensorflow", "keras", "optuna", "keras-tuner", "ray", "numpy")


@dataclass
class Telling:
    """The clock of one run and what its trials gave. Times in seconds; `complete` trials had all their epochs."""

    work: Work
    started: float = 0.0
    complete: int = 0
    other: int = 0
    best: float = 0.0
    target_s: float | None = None

    def start(self) -> None:
        """The clock starts."""
        self.started = time.perf_counter()
        print(json.dumps({"clock": "start"}), flush=True)

    def trial(self, accuracy: float, epochs: int) -> None:
        """A trial has ended; one that trained fewer epochs than the work has doesn't count."""
        if epochs < self.work.epochs:
            self.other += 1
            return
        self.complete += 1
        self.best = max(self.best, accuracy)
        if self.target_s is None and accuracy >= self.work.target:
            self.target_s = time.perf_counter() - self.started

    def finish(self) -> None:
        """The clock stops: tell the figures."""
        figures = {
            "seconds": time.perf_counter() - self.started,
            "complete": self.complete,
            "other": self.other,
            "best": self.best,
            "target_s": self.target_s,
        }
        print(json.dumps({"clock": "stop", "figures": figures, "versions": versions()}), flush=True)


def versions() -> dict[str, str]:
    """The versions that this peer runs with."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every peer takes: the work, trials, and a seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("work", choices=sorted(WORKS))
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser
