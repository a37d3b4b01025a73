"""Which device a trainer sees, decided before TensorFlow is imported.

A trainer gets one GPU by its UUID: an index that is wrong, or in another order, hides devices without a word.
"""

from __future__ import annotations

import shutil
import subprocess
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec

NVIDIA_SMI_TIMEOUT_S = 20


class DeviceError(Exception):
    """The device that was asked for isn't there."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device: its label (`cpu`, `gpu:1`) and the environment that shows a process this device alone."""

    label: str
    environment: dict[str, str]

    @property
    def kind(self) -> str:
        """`cpu` or `gpu`."""
        return self.label.partition(":")[0]


CPU = Device("cpu", {"CUDA_VISIBLE_DEVICES": "-1"})


def resolve(wanted: str) -> Device:
    """The device that `auto`, `cpu`, `gpu` or `gpu:<index in PCI order>` names on this machine.

    `auto` is the first GPU where there are one and CUDA's libraries, else the CPU.

    Raises:
        DeviceError: there is no such GPU.
    """
    if wanted == "cpu":
        return CPU
    uuids = gpu_uuids()
    if wanted == "auto":
        return _gpu(uuids, 0) if uuids and has_cuda_libraries() else CPU
    index = int(wanted.partition(":")[2] or 0)
    if index >= len(uuids):
        raise DeviceError(f"Expected a GPU for device {wanted!r}. Received {len(uuids)} GPUs from nvidia-smi.")
    return _gpu(uuids, index)


def _gpu(uuids: list[str], index: int) -> Device:
    environment = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": uuids[index],
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    return Device(f"gpu:{index}", environment)


def has_cuda_libraries() -> bool:
    """Whether TensorFlow may find CUDA's libraries here: from `tensorflow[and-cuda]`, or the system's."""
    return find_spec("nvidia") is not None or find_library("cudnn") is not None


def gpu_uuids() -> list[str]:
    """UUIDs of this machine's NVIDIA GPUs in PCI order; none without the driver's `nvidia-smi`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=pci.bus_id,uuid", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)  # noqa: S603
    if answer.returncode != 0:
        return []
    rows = sorted(line.split(",") for line in answer.stdout.splitlines() if "," in line)
    return [row[1].strip() for row in rows]
