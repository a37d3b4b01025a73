"""Devices are chosen by UUID in PCI order before a trainer starts; its environment holds nothing of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.device import CPU, DeviceError, gpu_uuids, resolve
from worker.trainer.process import clean_environment


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's `nvidia-smi` that lists two GPUs, not in PCI order, and CUDA's libraries."""
    monkeypatch.setattr("worker.device.has_cuda_libraries", lambda: True)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '00000000:41:00.0, GPU-second'\necho '00000000:01:00.0, GPU-first'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the driver."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("wanted", "label", "uuid"),
    [("auto", "gpu:0", "GPU-first"), ("gpu", "gpu:0", "GPU-first"), ("gpu:1", "gpu:1", "GPU-second")],
)
def test_a_gpu_is_shown_to_the_trainer_alone_and_by_uuid(wanted: str, label: str, uuid: str) -> None:
    device = resolve(wanted)
    assert (device.label, device.kind) == (label, "gpu")
    assert device.environment["CUDA_VISIBLE_DEVICES"] == uuid
    assert device.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused_in_words() -> None:
    with pytest.raises(DeviceError, match=r"gpu:2.*2 GPUs"):
        resolve("gpu:2")
    assert resolve("cpu") == CPU


@pytest.mark.usefixtures("two_gpus")
def test_auto_takes_no_gpu_that_tensorflow_could_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.device.has_cuda_libraries", lambda: False)
    assert resolve("auto") == CPU
    assert resolve("gpu").label == "gpu:0"


@pytest.mark.usefixtures("no_gpu")
def test_without_a_driver_auto_is_the_cpu_and_a_gpu_is_refused() -> None:
    assert gpu_uuids() == []
    assert resolve("auto") == CPU
    assert CPU.environment["CUDA_VISIBLE_DEVICES"] == "-1"
    with pytest.raises(DeviceError, match="0 GPUs"):
        resolve("gpu")


def test_a_trainers_environment_holds_no_setting_and_no_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    environment = clean_environment(CPU)
    assert not [name for name in environment if name.startswith(("FETTLE_", "PG", "AWS_"))]
    assert environment["TF_DETERMINISTIC_OPS"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
