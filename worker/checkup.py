"""What a worker would find on this machine, as JSON: its device, plugins, and TensorFlow, which a child imports."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from app import start
from worker.device import CPU, DeviceError, gpu_uuids, resolve
from worker.memory import device_memory_mb
from worker.plugin_loading import installed
from worker.trainer.process import clean_environment

IMPORT_S = 150.0


def checkup(wanted: str) -> dict[str, Any]:
    """What is there for a worker whose device is `wanted`."""
    error = None
    try:
        device = resolve(wanted)
    except DeviceError as problem:
        device, error = CPU, str(problem)
    about = {
        "device": device.label,
        "device_error": error,
        "memory_mb": device_memory_mb(device),
        "gpus": len(gpu_uuids()),
        "broken_plugins": installed().broken,
    }
    return about | _tensorflow(clean_environment(device))


def _tensorflow(environment: dict[str, str]) -> dict[str, Any]:
    """What a trainer would find: TensorFlow's version, the GPUs that it sees, how long its import takes."""
    nothing = {"tensorflow": None, "tensorflow_gpus": 0, "import_seconds": 0.0}
    command = start.command("worker.training.probe")
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=IMPORT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return nothing | {"tensorflow_error": f"not imported within {IMPORT_S:g} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return nothing | {"tensorflow_error": lines[-1] if lines else f"it ended with {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"tensorflow_error": None}
