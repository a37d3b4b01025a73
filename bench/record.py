"""What was measured, one JSON line each, appended as soon as it is known: a bench that was cut off goes on from there.

A record says what was measured (`row`, `side`, `repetition`, `settings`), what came out (`figures`), and under which
circumstances: machine, versions, and digests of the code of Fettle and of the peers' scripts. A measurement is not
repeated while settings, machine and code are the same. `figures` hold the load average before it too, which tells a
machine that had other things to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "measurements.jsonl"
PACKAGES = ("tensorflow", "keras", "optuna", "sqlalchemy", "fastapi", "numpy")
FETTLE_CODE = ("app", "worker", "migrations", "requirements/worker.txt")
PEERS_CODE = ("bench/peers", "requirements/bench-peers.txt")

FETTLE = "Fettle"
"""The side that is ours; every other name is a peer's."""


@dataclass(frozen=True)
class Record:
    """One measurement. `code` holds the digests `fettle` and `peers`, `describe` the commit in git's words."""

    row: str
    side: str
    repetition: int
    settings: Mapping[str, Any]
    figures: Mapping[str, Any]
    at: str = ""
    describe: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """What two repetitions of one measurement have in common, the version of the code aside."""
        return self.row, self.side, _canonical(self.settings), _canonical(self.machine)


class Records:
    """The measurements in a file, oldest first. Lines that a crash cut short are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: list[Record] = []
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                try:
                    self._all.append(Record(**json.loads(line)))
                except (json.JSONDecodeError, TypeError):
                    continue

    def append(self, record: Record) -> None:
        """Keep a record, on disk at once."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                file.write("\n")
            file.write(json.dumps(asdict(record), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._all.append(record)

    def holds(self, wanted: Record, any_fettle: bool = False) -> bool:
        """Whether the same was measured with the same code; with `any_fettle` beside any version of Fettle."""
        parts = ("peers",) if any_fettle else ("fettle", "peers")
        return any(
            r.kind == wanted.kind
            and r.repetition == wanted.repetition
            and all(r.code.get(part) == wanted.code.get(part) for part in parts)
            for r in self._all
        )

    def latest(self, row: str, side: str) -> list[Record]:
        """The repetitions of the newest measurement of a row's side, in order, each as it was measured last.

        They share settings, machine and the code of their own side: Fettle's figures are never mixed from two versions.
        """
        matching = [r for r in self._all if r.row == row and r.side == side]
        if not matching:
            return []
        newest = matching[-1]
        part = "fettle" if side == FETTLE else "peers"
        chosen = {
            r.repetition: r for r in matching if r.kind == newest.kind and r.code.get(part) == newest.code.get(part)
        }
        return [chosen[repetition] for repetition in sorted(chosen)]

    def everything(self) -> list[Record]:
        """All records, oldest first."""
        return list(self._all)


def record(
    row: str,
    side: str,
    repetition: int,
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    versions: Mapping[str, str] | None = None,
) -> Record:
    """A record of what was measured just now, here; `versions` where the side ran in an environment of its own."""
    return Record(
        row,
        side,
        repetition,
        dict(settings),
        dict(figures),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        describe=described(),
        code=code(),
        machine=machine(),
        versions=dict(versions or our_versions()),
    )


@cache
def code() -> dict[str, str]:
    """Digests of what the figures depend on: Fettle's own code, and the peers' scripts and pins."""
    return {"fettle": digest(ROOT, FETTLE_CODE), "peers": digest(ROOT, PEERS_CODE)}


def digest(root: Path, paths: tuple[str, ...]) -> str:
    """A digest of the Python files below `paths`, and of the files that `paths` name themselves."""
    found = hashlib.sha256()
    for path in (root / name for name in paths):
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]


@cache
def described() -> str:
    """The commit that is checked out, as `git describe` puts it, "-dirty" where the code is changed beside it.

    "unknown" outside of a checkout. The docs page, which the bench itself writes, is no code.
    """
    try:
        commit = _git("describe", "--always", "--tags")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *FETTLE_CODE, *PEERS_CODE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@cache
def machine() -> dict[str, Any]:
    """The machine: processor, cores that this process may use, memory in GB, system."""
    return {
        "processor": _processor(),
        "cores": len(psutil.Process().cpu_affinity() or []),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"


@cache
def our_versions() -> dict[str, str]:
    """The versions that Fettle runs with."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
