"""The bench keeps each measurement as soon as it is known, and measures nothing twice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.record import FETTLE, ROOT, Record, Records, digest, record
from bench.table import Row
from bench.tasks import Options, Part, Run, Task, whole
from tests.unit.bench_records import figures, made, written


class Measured:
    """A part with two sides, which counts what it really measured."""

    def __init__(self, trials: int = 24) -> None:
        self.trials = trials
        self.ran: list[tuple[str, int]] = []
        self.broken: set[tuple[str, int]] = set()
        self.part = Part("some", self.tasks, lambda records: [])

    def tasks(self, options: Options, _records: Records) -> Iterator[Task]:
        for repetition in range(options.repetitions):
            for side, rows in ((FETTLE, ("fresh", "warm")), ("plain", ("peer",))):
                run = self._runner(side, repetition, rows)
                yield Task(rows, side, repetition, {"trials": self.trials}, run)

    def _runner(self, side: str, repetition: int, rows: tuple[str, ...]) -> Any:
        def run() -> Mapping[str, Any]:
            self.ran.append((side, repetition))
            if (side, repetition) in self.broken:
                raise RuntimeError("Expected trials. Received none.")
            return {row: figures(1.0) for row in rows}

        return run


def went(part: Part, path: Path, **options: Any) -> Run:
    """One way through a part, from and to a file."""
    run = Run(Options(**{"repetitions": 2} | options), Records(path), say=lambda text: None)
    run.part(part)
    return run


ALL = [(FETTLE, 0), ("plain", 0), (FETTLE, 1), ("plain", 1)]


def test_sides_alternate_and_every_row_of_a_task_is_appended(tmp_path: Path) -> None:
    measured = Measured()
    went(measured.part, tmp_path / "m.jsonl")
    assert measured.ran == ALL
    kept = [(r.row, r.side, r.repetition) for r in Records(tmp_path / "m.jsonl").everything()]
    assert kept == [
        ("fresh", FETTLE, 0), ("warm", FETTLE, 0), ("peer", "plain", 0),
        ("fresh", FETTLE, 1), ("warm", FETTLE, 1), ("peer", "plain", 1),
    ]  # fmt: skip


def test_a_restarted_bench_skips_what_is_recorded(tmp_path: Path) -> None:
    path, measured = tmp_path / "m.jsonl", Measured()
    went(measured.part, path, repetitions=1)
    went(measured.part, path)
    assert measured.ran == ALL
    went(measured.part, path)
    assert measured.ran == ALL


def test_other_settings_are_measured_anew_and_again_means_all(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    went(Measured().part, path)
    other = Measured(trials=48)
    went(other.part, path)
    assert other.ran == ALL
    went(other.part, path, again=True)
    assert other.ran == ALL * 2


def test_a_broken_measurement_is_told_leaves_the_rest_alone_and_is_tried_again(tmp_path: Path) -> None:
    path, measured = tmp_path / "m.jsonl", Measured()
    measured.broken = {("plain", 0)}
    run = went(measured.part, path)
    assert measured.ran == ALL
    assert len(run.failures) == 1
    assert "plain, repetition 0: RuntimeError: Expected trials." in run.failures[0]
    measured.ran, measured.broken = [], set()
    assert not went(measured.part, path).failures
    assert measured.ran == [("plain", 0)]


def test_a_line_that_a_crash_cut_short_costs_that_measurement_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    written(path, [made("fresh", FETTLE, 0, figures(1.0)), made("fresh", FETTLE, 1, figures(2.0))])
    path.write_text(path.read_text()[:-30])
    records = Records(path)
    assert [r.repetition for r in records.everything()] == [0]
    records.append(made("fresh", FETTLE, 1, figures(3.0)))
    assert [r.figures["rate"] for r in Records(path).latest("fresh", FETTLE)] == [1.0, 3.0]


def test_code_of_another_version_is_measured_anew_except_for_peers_that_are_to_be_kept(tmp_path: Path) -> None:
    old = made("peer", "plain", 0, figures(1.0), fettle="f0")
    records = written(tmp_path / "m.jsonl", [old])
    wanted = made("peer", "plain", 0, {})
    assert not records.holds(wanted)
    assert records.holds(wanted, any_fettle=True)
    assert not records.holds(made("peer", "plain", 0, {}, peers="p2"), any_fettle=True)
    assert not records.holds(made("peer", "plain", 1, {}, fettle="f0"))
    assert not records.holds(made("peer", "plain", 0, {}, fettle="f0", machine={"cores": 64}))


def test_keeping_peers_measures_ours_alone(tmp_path: Path) -> None:
    path, measured = tmp_path / "m.jsonl", Measured()
    went(measured.part, path, repetitions=1)
    lines = path.read_text().replace(record("r", "s", 0, {}, {}).code["fettle"], "another")
    path.write_text(lines)
    measured.ran = []
    went(measured.part, path, repetitions=1, keep_peers=True)
    assert measured.ran == [(FETTLE, 0)]


def test_the_latest_never_mixes_versions_of_fettle_or_settings(tmp_path: Path) -> None:
    records = written(
        tmp_path / "m.jsonl",
        [
            made("fresh", FETTLE, 0, figures(1.0), fettle="f0"),
            made("fresh", FETTLE, 1, figures(2.0), fettle="f0"),
            made("fresh", FETTLE, 2, figures(3.0), settings={"trials": 6}),
            made("fresh", FETTLE, 1, figures(5.0)),
            made("fresh", FETTLE, 0, figures(4.0)),
            made("fresh", FETTLE, 0, figures(6.0)),
        ],
    )
    assert [r.figures["rate"] for r in records.latest("fresh", FETTLE)] == [6.0, 5.0]
    assert records.latest("fresh", "plain") == []


def test_a_part_that_measures_all_its_rows_in_one_go_resumes_as_well(tmp_path: Path) -> None:
    calls: list[int] = []

    def rows(options: Options) -> list[Row]:
        calls.append(options.repetitions)
        return [Row("own cost", "ms", [1.0, 2.0], [4.0, 6.0], "<= 5 ms", True, "a note")]

    part, path = whole("cost", "overhead.py", rows), tmp_path / "m.jsonl"
    for _ in range(2):
        went(part, path)
    assert calls == [2]
    assert part.rows(Records(path)) == [Row("own cost", "ms", [1.0, 2.0], [4.0, 6.0], "<= 5 ms", True, "a note")]
    went(part, path, repetitions=3)
    assert calls == [2, 3]


def test_a_record_says_where_and_with_what_it_was_measured(tmp_path: Path) -> None:
    made_here = record("fresh", FETTLE, 0, {"trials": 1}, figures(1.0))
    records = Records(tmp_path / "m.jsonl")
    records.append(made_here)
    read: Record = Records(tmp_path / "m.jsonl").everything()[0]
    assert read == made_here
    assert {"processor", "cores", "memory_gb"} <= set(read.machine)
    assert {"python", "optuna", "tensorflow"} <= set(read.versions)
    assert read.at.endswith("+00:00")
    assert read.describe


def test_a_digest_follows_the_code_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("a = 1\n")
    (tmp_path / "pins.txt").write_text("optuna==5.0.0\n")
    paths = ("app", "pins.txt")
    first = digest(tmp_path, paths)
    (tmp_path / "app" / "notes.md").write_text("words")
    assert digest(tmp_path, paths) == first
    (tmp_path / "pins.txt").write_text("optuna==5.0.1\n")
    second = digest(tmp_path, paths)
    (tmp_path / "app" / "main.py").write_text("a = 2\n")
    assert len({first, second, digest(tmp_path, paths)}) == 3


@pytest.mark.parametrize("path", ["bench/results/measurements.jsonl", ".venv-peers"])
def test_what_the_bench_leaves_behind_is_not_committed(path: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0
