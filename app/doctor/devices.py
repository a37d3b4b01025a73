"""What a worker of this machine would train on, asked of a child process: TensorFlow stays out of this one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from app import start
from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok, warning

CHILD_S = 180.0
"""TensorFlow's first import may take a minute on a slow disk."""


def device_here(examination: Examination) -> Iterator[Finding]:
    """Ask `python -m worker --check` for device, memory, plugins and TensorFlow."""
    expected = "TensorFlow, where workers are to run"
    if find_spec("tensorflow") is None:
        found = "not installed: this machine can serve the API alone"
        yield ok("tensorflow", expected, found)
        return
    try:
        about = _ask(examination.settings.device)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        found = f"no answer within {CHILD_S:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        yield failed("tensorflow", expected, found, "Run `python -m worker --check` and look at what it says.")
        return
    yield from _told(about, examination.settings.device)


def _ask(device: str) -> dict[str, Any]:
    command = start.command("worker", "--check", "--device", device)
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, capture_output=True, text=True, timeout=CHILD_S, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise ValueError(lines[-1] if lines else f"it ended with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _told(about: dict[str, Any], wanted: str) -> Iterator[Finding]:
    """What the child's answer means."""
    expected = f"a device for FETTLE_DEVICE={wanted}"
    if about["device_error"]:
        advice = "Look at `nvidia-smi`, or set FETTLE_DEVICE to cpu or auto."
        yield failed("device", expected, about["device_error"], advice)
        return
    memory = "" if about["memory_mb"] is None else f", {about['memory_mb']:,.0f} MB"
    found = f"{about['device']}{memory}; {about['gpus']} GPUs by nvidia-smi"
    if wanted == "auto" and about["gpus"] and about["device"] == "cpu":
        advice = "TensorFlow has no CUDA libraries here: install `tensorflow[and-cuda]`."
        yield warning("device", expected, found, advice)
    else:
        yield ok("device", expected, found)
    if about["tensorflow_error"]:
        advice = "Run `python -c 'import tensorflow'` there; install the extra again: `pip install 'fettle[worker]'`."
        yield failed("tensorflow", "TensorFlow that can be imported", about["tensorflow_error"], advice)
    elif about["device"].startswith("gpu") and not about["tensorflow_gpus"]:
        found = f"TensorFlow {about['tensorflow']} sees no GPU on {about['device']}"
        advice = "Install the CUDA libraries that it wants: `tensorflow[and-cuda]`; look at the driver's version."
        yield failed("tensorflow", "TensorFlow that sees the device", found, advice)
    else:
        found = f"TensorFlow {about['tensorflow']}, imported in {about['import_seconds']:.1f} s"
        yield ok("tensorflow", "TensorFlow that can be imported", found)
    for name, problem in about["broken_plugins"].items():
        advice = "Its families are not offered: mend or remove the package."
        yield warning("plugins", "plugins that can be imported", f"{name}: {problem}", advice)
