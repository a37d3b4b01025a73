"""How much memory a worker's device has: a GPU's own, or what the machine or its container lets a process have."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

from worker.device import NVIDIA_SMI_TIMEOUT_S, Device

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MB = 1e6
MIB_BYTES = 2**20
RESERVED_MB, RESERVED_SHARE = 1_000, 0.15
"""What trainers leave of all memory, the larger of both: for the system, the API, the workers and a database."""
MOST_RESERVED_SHARE = 0.4
"""Of a small machine no more than this is left: TensorFlow alone takes some 800 MB."""


def largest_trainer_mb(total_mb: float, workers: int) -> float:
    """What a trainer may hold before it is killed, where `workers` share a machine of `total_mb`, in MB (10⁶ bytes).

    Together their trainers leave enough that nothing else starves: the kernel would take a process of its own choice.
    """
    reserved_mb = min(max(RESERVED_MB, RESERVED_SHARE * total_mb), MOST_RESERVED_SHARE * total_mb)
    return (total_mb - reserved_mb) / workers


def host_memory_mb() -> float:
    """What the machine, or the container that this process is in, lets it have, in MB (10⁶ bytes)."""
    total = int(psutil.virtual_memory().total)
    return min([total, *cgroup_limits(CGROUPS, MEMBERSHIP)]) / MB


def device_memory_mb(device: Device) -> float | None:
    """What a trainer on `device` may hold at most, in MB (10⁶ bytes); None for a GPU that doesn't say."""
    if device.kind == "gpu":
        return _gpu_memory_mb(device.environment["CUDA_VISIBLE_DEVICES"])
    return host_memory_mb()


def cgroup_limits(root: Path, membership: Path) -> Iterator[int]:
    """The limits in bytes of the control groups that hold this process, in version 2 or 1 (kernel: cgroup-v2.rst).

    Every group above counts as well. `root` is where they are mounted, `membership` the process' list of its own.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group = PurePosixPath(path.lstrip("/"))
        for folder in (group, *group.parents):
            # Of a container its own group is the root of what is mounted; "max" means none.
            with suppress(OSError, ValueError):
                yield int((base / folder / name).read_text(encoding="ascii"))


def _gpu_memory_mb(uuid: str) -> float | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)  # noqa: S603
    for line in answer.stdout.splitlines():
        name, _, total = line.partition(",")
        if name.strip() == uuid and total.strip().isdigit():
            return int(total) * MIB_BYTES / MB
    return None
