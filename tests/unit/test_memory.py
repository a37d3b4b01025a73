"""What trials are expected to hold in memory, and what a process may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.serve import environment
from app.domain.datasets import BUNDLED
from app.domain.families import FAMILIES
from app.domain.memory import memory_estimate, trial_bytes
from app.domain.space import Categorical, Int
from app.settings import Settings
from worker.device import CPU
from worker.memory import cgroup_limits, device_memory_mb, largest_trainer_mb


def estimate(family: str = "mlp", dataset: str = "digits", **changes: object) -> float:
    found = memory_estimate(family, {**FAMILIES[family].defaults(), **changes}, BUNDLED[dataset])  # type: ignore[dict-item]
    assert found is not None
    return found.largest_trial_mb


def test_the_estimate_is_that_of_the_largest_trial_and_grows_with_what_it_holds() -> None:
    small, large = estimate(units=64), estimate(units=1024)
    assert small < large == estimate(units=Int(type="int", low=8, high=1024))
    assert large == estimate(units=Categorical(type="categorical", choices=[1024, 8]))
    weights = 64 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 10 + 10
    assert large == pytest.approx(trial_bytes(weights, 2 * 1024 + 10, 32) / 1e6, abs=1e-3)


def test_accumulating_batches_needs_the_memory_of_one() -> None:
    once = estimate("image-cnn", "shapes", batch_size=256)
    assert estimate("image-cnn", "shapes", batch_size=32, gradient_accumulation_steps=8) < once / 4


def test_a_family_without_sizes_has_no_estimate() -> None:
    assert memory_estimate("function", {"function": "sphere"}, BUNDLED["digits"]) is None


def test_a_cpu_has_what_the_machine_has_or_less() -> None:
    megabytes = device_memory_mb(CPU)
    assert megabytes is not None
    assert 64 < megabytes < 1e8


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize(("total_mb", "left_mb"), [(1_500, 600), (8_000, 1_200), (24_000, 3_600), (512_000, 76_800)])
def test_trainers_that_share_a_machine_leave_enough_for_all_else(total_mb: float, left_mb: float, workers: int) -> None:
    assert total_mb - workers * largest_trainer_mb(total_mb, workers) == pytest.approx(left_mb)


def test_workers_that_come_up_together_know_how_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(Settings().model_copy(update={"workers_on_machine": 3}))
    assert given["FETTLE_WORKERS_ON_MACHINE"] == "3"
    monkeypatch.setenv("FETTLE_WORKERS_ON_MACHINE", given["FETTLE_WORKERS_ON_MACHINE"])
    assert Settings().workers_on_machine == 3


def test_the_smallest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    (tmp_path / "a" / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.max").write_text("2000000\n")
    assert sorted(cgroup_limits(tmp_path, membership)) == [2_000_000, 3_000_000]


def test_groups_of_the_first_version_are_read_by_their_controller(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/x\n4:memory:/x\n")
    (tmp_path / "memory" / "x").mkdir(parents=True)
    (tmp_path / "memory" / "x" / "memory.limit_in_bytes").write_text("1000\n")
    assert list(cgroup_limits(tmp_path, membership)) == [1000]


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert list(cgroup_limits(tmp_path, tmp_path / "none")) == []
