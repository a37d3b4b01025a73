"""One study on one side: Fettle through HTTP, or a peer's script. Both give the same figures.

`rate` trials a minute, counting those COMPLETE with all their epochs; `seconds` in all; `target_s` seconds until a
trial that reached the work's target had ended, None where none did; `best` validation accuracy; `cpu_s` CPU seconds a
counted trial and `peak_mb` of memory, of all processes; `complete` counted trials and `other` ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Usage, usage_of
from bench.record import ROOT
from bench.service import Service, seconds
from bench.works import Work

CHECKED_TRIALS = 3
"""Of a study's counted trials so many are looked at epoch by epoch, the first, one in the middle and the last."""


def fettle(running: Service, work: Work, definition: Mapping[str, Any]) -> dict[str, Any]:
    """Run a study of Fettle and give its figures, with `in_flight`: how many trials were started and not ended at most.

    Raises:
        RuntimeError: the study did not complete, or a trial's epochs are not all there.
    """
    with usage_of(running.pid) as usage:
        took_s, study = running.run(dict(definition))
    trials = running.trials(study["id"])
    full = [t for t in trials if t["state"] == "COMPLETE" and t["epochs"] == work.epochs]
    _check_epochs(running, study["id"], work, full)
    created = seconds(study["created_at"])
    reached = [
        seconds(t["finished_at"]) - created
        for t in trials
        if t["values"] and t["values"]["val_accuracy"] >= work.target and t["state"] == "COMPLETE"
    ]
    best = max((t["values"]["val_accuracy"] for t in trials if t["state"] == "COMPLETE"), default=0.0)
    figures = {
        "seconds": took_s,
        "complete": len(full),
        "other": len(trials) - len(full),
        "best": best,
        "target_s": min(reached, default=None),
        "in_flight": in_flight(trials),
    }
    return figures | _rates(figures, usage)


def in_flight(trials: Sequence[Mapping[str, Any]]) -> int:
    """The most trials that were started and not yet ended at one time."""
    changes = []
    for trial in trials:
        if trial["started_at"] and trial["finished_at"]:
            changes += [(seconds(trial["started_at"]), 1), (seconds(trial["finished_at"]), -1)]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def _check_epochs(running: Service, study_id: str, work: Work, full: Sequence[Mapping[str, Any]]) -> None:
    """Look whether a few counted trials have the metrics of all their epochs."""
    wanted = list(range(work.epochs))
    for trial in full[:: max(1, (len(full) - 1) // (CHECKED_TRIALS - 1))]:
        answer = running.http.get(f"/v1/studies/{study_id}/trials/{trial['number']}/metrics")
        epochs = [item["epoch"] for item in answer.raise_for_status().json()["items"]]
        if epochs != wanted:
            raise RuntimeError(f"Expected epochs {wanted} of trial {trial['number']}. Received: {epochs}")


def peer(
    python: Path | str, script: str, work: Work, trials: int, seed: int, *options: str, package: str = "bench.peers"
) -> dict[str, Any]:
    """Run `<package>.<script>` with an interpreter that has its packages, and give its figures and `versions`.

    Raises:
        RuntimeError: there is no such interpreter, or the script failed; the message has the end of what it wrote.
    """
    if not Path(python).exists():
        raise RuntimeError(f"Expected the peers' environment at {python}. Make it with: make peers")
    command = [str(python), "-m", f"{package}.{script}", work.name]
    command += ["--trials", str(trials), "--seed", str(seed), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryFile("w+") as errors:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": errors, "text": True}
        with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
            try:
                told, usage = _listen(process)
                status = process.wait()
            finally:
                process.kill()  # where the bench itself is interrupted
        errors.seek(0)
        if status or told is None or usage is None:
            raise RuntimeError(f"Expected figures from {script}. Received status {status}: {errors.read()[-2000:]}")
    figures: dict[str, Any] = told["figures"]
    return figures | {"versions": told["versions"]} | _rates(figures, usage)


def _listen(process: subprocess.Popen[str]) -> tuple[dict[str, Any] | None, Usage | None]:
    """What a peer's script told at its end, and what its processes used between its start and stop of the clock."""
    told: dict[str, Any] | None = None
    usage: Usage | None = None
    for line in process.stdout or ():
        if not line.startswith('{"clock"'):
            continue  # whatever a library prints
        message = json.loads(line)
        if message["clock"] == "start":
            usage = Usage(process.pid).start()
        elif usage is not None:
            usage.stop()
            told = message
    return told, usage


def _rates(figures: Mapping[str, Any], usage: Usage) -> dict[str, float]:
    """Trials a minute, CPU seconds a trial, and memory.

    Raises:
        RuntimeError: no trial counts.
    """
    complete = figures["complete"]
    if not complete:
        raise RuntimeError(f"Expected COMPLETE trials with all their epochs. Received none of {figures['other']}.")
    return {
        "rate": 60 * complete / figures["seconds"],
        "cpu_s": usage.cpu_s / complete,
        "peak_mb": usage.peak_mb,
    }
