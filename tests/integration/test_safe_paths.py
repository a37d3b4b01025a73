"""Modules of a user's own that are called as ours, or as Python's, change nothing for any process of the service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app import start
from app.store.migrate import HEAD
from tests.support.processes import ROOT, wait_for

NAMES = ("app", "worker", "migrations", "random", "json", "numpy", "sqlalchemy")
FETTLE = [str(Path(sys.executable).parent / "fettle")]
STUDY = {
    "name": "own",
    "model": {"family": "function"},
    "hyperparameters": {"x0": {"type": "float", "low": 0.0, "high": 1.0}},
    "objectives": [{"metric": "value"}],
    "budget": {"trials": 2},
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder, in which every module says in a file that it was imported."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'a').write({name + ' '!r})\nraise SystemExit('not ours: {name}')\n"
        )
    package = folder / "app"
    package.mkdir()
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('app/ ')\n")
    return folder


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FETTLE_", "PYTHON"))}
    return kept | changes


def check_untouched(tmp_path: Path) -> None:
    marks = tmp_path / "imported"
    assert not marks.exists(), f"imported: {marks.read_text()}"


def run(own: Path, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=own, env=environment(**changes), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("on_path", [False, True], ids=["current", "PYTHONPATH"])
@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("app", ("migrate",), HEAD),
        ("app", ("doctor", "--json"), '"checks"'),
        ("app", ("--help",), "Tune hyperparameters"),
        ("worker", ("--check",), "tensorflow"),
        ("worker.trainer", (), ""),
    ],
    ids=["migrate", "doctor", "help", "worker", "trainer"],
)
def test_a_process_of_ours_runs_ours(
    own: Path, tmp_path: Path, module: str, arguments: tuple[str, ...], said: str, on_path: bool
) -> None:
    changes = {"PYTHONPATH": str(own)} if on_path else {}
    done = run(own, *start.command(module, *arguments), FETTLE_DATA_DIR=str(tmp_path / "data"), **changes)
    check_untouched(tmp_path)
    if said:
        assert said in done.stdout, done.stderr
    else:
        # Without its pipe it ends at once: but in our own code.
        assert "worker/trainer/__main__.py" in done.stderr


def test_the_installed_command_runs_ours_in_any_folder(own: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert HEAD in run(own, *FETTLE, "migrate", FETTLE_DATA_DIR=data).stdout
    assert '"checks"' in run(own, *FETTLE, "doctor", "--json", FETTLE_DATA_DIR=data).stdout
    check_untouched(tmp_path)


def test_a_service_its_worker_and_its_trainer_run_ours(own: Path, tmp_path: Path) -> None:
    """In the user's folder, which is on PYTHONPATH as well: for the first process ours is said to come before it."""
    log = tmp_path / "log"
    settings = {"FETTLE_DATA_DIR": str(tmp_path / "data"), "FETTLE_FAMILIES": "function"}
    with log.open("wb") as file:
        service = subprocess.Popen(
            [*start.command("app"), "up", "--port", "0", "--workers", "1"],
            cwd=own, env=environment(PYTHONPATH=str(own), **settings), stdout=file, stderr=file,
        )  # fmt: skip
    try:

        def address() -> str | None:
            words = log.read_text().split()
            return next((word for word in words if word.startswith("http://127.0.0.1:")), None)

        with httpx.Client(base_url=wait_for(address, 90, "an address"), timeout=30) as client:
            study = client.post("/v1/studies", json=STUDY).json()
            wait_for(lambda: client.get(f"/v1/studies/{study['id']}").json()["state"] == "COMPLETED", 90, "its end")
    finally:
        service.terminate()
        service.wait(60)
        print(log.read_text())
    check_untouched(tmp_path)


def test_plugins_on_the_path_are_found_and_ours_come_first(tmp_path: Path) -> None:
    (tmp_path / "beside_ours.py").write_text("")
    (tmp_path / "worker.py").write_text("raise SystemExit('not ours')")
    probe = tmp_path / "asked.py"
    probe.write_text("import beside_ours, sys, worker; print(worker.__file__, sys.path[-1])")
    done = run(tmp_path, *start.command("asked"), PYTHONPATH=str(tmp_path))
    ours, last = done.stdout.split()
    assert (ours, last) == (str(ROOT / "worker" / "__init__.py"), str(tmp_path))
