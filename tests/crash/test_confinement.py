"""What a real trainer has, and has not: no credentials, no database, limits, and a worker that watches its memory."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.domain.json import loads
from app.store import lifecycle
from tests.crash.misdeeds import LEAKED_BYTES, arm
from tests.store.conftest import Bench
from tests.support.processes import ROOT, Fleet, WorkerProcess, over, wait_for
from worker.confinement import MAX_FILE_BYTES, MAX_OPEN_FILES, OOM_SCORE_ADJ

MakeStudy = Callable[..., Bench]
SECRETS = {
    "AWS_ACCESS_KEY_ID": "s3cret", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "s3cret",
    "GOOGLE_APPLICATION_CREDENTIALS": "/s3cret.json", "AZURE_STORAGE_KEY": "s3cret", "PGPASSWORD": "s3cret",
    "PGPASSFILE": "/s3cret", "GITHUB_TOKEN": "s3cret", "HTTPS_PROXY": "http://user:s3cret@proxy", "LD_PRELOAD": "",
    "PYTHONSTARTUP": "/s3cret.py", "KUBECONFIG": "/s3cret", "FSSPEC_S3_SECRET": "s3cret",
}  # fmt: skip
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def environment_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.partition("=")[::2] for entry in text.split("\0") if entry)  # type: ignore[misc]


@linux
def test_a_trainer_has_limits_no_credentials_and_nothing_of_the_database(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    bench = make_study(epochs=10_000, delay_seconds=0.05)
    worker = fleet.start(environment=SECRETS)
    wait_for(lambda: bench.study().running == 1, 60, "a trial that runs")
    pid = worker.trainer_pid()
    trainer, supervisor = psutil.Process(pid), psutil.Process(worker.pid)
    url = bench.database.url
    assert "s3cret" in str(environment_of(worker.pid)), "the worker itself has them"
    environment = environment_of(pid)
    assert not [name for name in environment if name.startswith("FETTLE_") or name in SECRETS]
    told = " ".join([*environment.values(), *trainer.cmdline()])
    assert "s3cret" not in told
    assert url.render_as_string(hide_password=False) not in told
    # One socket: the pair that is its pipe. The worker's connections and files of the database stay with the worker.
    assert not trainer.net_connections(kind="inet")
    opened = [Path(f"/proc/{pid}/fd/{entry.name}").readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert sum(str(target).startswith("socket:") for target in opened) == 1
    assert not [target for target in opened if "fettle.db" in str(target)]
    held = [str(Path(f"/proc/{worker.pid}/fd/{e.name}").readlink()) for e in Path(f"/proc/{worker.pid}/fd").iterdir()]
    assert any("fettle.db" in target for target in held) or supervisor.net_connections(kind="all")
    assert not list(trainer.children())
    _check_limits(worker, pid)


def _check_limits(worker: WorkerProcess, pid: int) -> None:
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert 0 < resource.prlimit(pid, resource.RLIMIT_FSIZE)[1] <= MAX_FILE_BYTES
    assert 0 < resource.prlimit(pid, resource.RLIMIT_NOFILE)[1] <= MAX_OPEN_FILES
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Umask"].strip() == "0077"
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) >= OOM_SCORE_ADJ
    assert int(Path(f"/proc/{worker.pid}/oom_score_adj").read_text()) < OOM_SCORE_ADJ
    worker.signal(signal.SIGKILL)
    worker.wait()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 10)


CONFINED = """
import os, resource, sys
from worker.confinement import confine
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
confine("cpu")
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    open(sys.argv[1], "wb").write(b"x" * 100_000)
except OSError as error:
    print(type(error).__name__, error.errno)
print(oct(os.stat(sys.argv[1]).st_mode & 0o777))
try:
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
except ValueError:
    print("for good")
"""


@linux
def test_limits_that_are_lower_stay_and_a_file_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(tmp_path / "file")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["(100, 200) (0, 0)", "OSError 27", "0o600"]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_trial_that_grows_beyond_the_limit_is_out_of_memory_and_its_neighbours_are_not_charged(
    fleet: Fleet, make_study: MakeStudy, tmp_path: Path
) -> None:
    greedy = 0.201
    bench = make_study(
        trials=3,
        epochs=4,
        hyperparameters={
            "x0": {"type": "float", "low": -1.0, "high": 1.0},
            # Members sleep as long as the slowest of them: the greedy one makes the whole stack grow.
            "delay_seconds": {"type": "float", "low": 0.0, "high": greedy},
        },
        execution={"max_attempts": 2},
    )
    bench.act(lifecycle.enqueue, {"x0": 0.5, "delay_seconds": greedy})
    for delay in (0.0, 0.01):
        bench.act(lifecycle.enqueue, {"x0": 0.1, "delay_seconds": delay})
    worker = fleet.start(
        environment=arm(tmp_path / "misdeeds", {greedy: ("leak", 100)}),
        trainer_max_memory_mb=100_000,
        trainer_kill_memory_mb=LEAKED_BYTES // 10**6,
    )
    assert over(bench, 90) == "COMPLETED"
    assert worker.process.poll() is None
    first, *neighbours = bench.trials()
    assert (first.state, first.reason, first.error_code) == ("FAIL", "OUT_OF_MEMORY", "TRAINER_TOO_LARGE")
    assert "FETTLE_TRAINER_KILL_MEMORY_MB" in str(first.error_message)
    assert [(t.state, t.charged) for t in neighbours] == [("COMPLETE", 0)] * 2
    assert "trainer_lost" in worker.log()
    assert loads(first.hyperparameters or "")["delay_seconds"] == greedy
    bench.check()
