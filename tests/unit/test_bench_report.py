"""Ratios, medians and verdicts come out right, and the same records give the same page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench.__main__ as command
from bench import accuracy, digits, memory, report
from bench.claims import Claim, Comparison, Line, claimed, compared, pairs
from bench.record import FETTLE, Record, Records
from bench.sides import in_flight
from bench.table import Row, number, spread
from tests.unit.bench_records import figures, made, written

RATES = {FETTLE: [700.0, 900.0, 800.0], "plain": [20.0, 20.0, 10.0]}


def study(tmp_path: Path, more: list[Record] | None = None) -> Records:
    """Three repetitions of Fettle and plain: 35, 45 and 80 times."""
    found = [
        made("fresh" if side == FETTLE else "peer", side, i, figures(rate, target_s=100 / rate, cpu_s=10 / rate))
        for side, rates in RATES.items()
        for i, rate in enumerate(rates)
    ]
    return written(tmp_path / "m.jsonl", found + (more or []))


def test_a_ratio_is_taken_within_a_repetition_and_its_median_is_judged(tmp_path: Path) -> None:
    records = study(tmp_path)
    hit, missed = claimed(records, [Claim("some", "fresh", "peer", "plain", goal) for goal in (45, 46)])
    assert hit.ratios == [35.0, 45.0, 80.0]
    assert hit.met is True
    assert missed.met is False
    assert (hit.goal, missed.goal) == (">= 45 x", ">= 46 x")
    assert spread(hit.ratios) == "45 (35-80)"


def test_less_is_better_for_times_and_memory(tmp_path: Path) -> None:
    records = study(tmp_path)
    ours, theirs = records.latest("fresh", FETTLE), records.latest("peer", "plain")
    assert pairs(ours, theirs, "target_s") == pytest.approx([35, 45, 80])
    assert pairs(ours, theirs, "cpu_s") == pytest.approx([35, 45, 80])
    assert pairs(ours, theirs, "peak_mb") == [1, 1, 1]
    assert pairs(ours, theirs, "best") == []


def test_only_repetitions_that_both_sides_have_are_paired(tmp_path: Path) -> None:
    records = written(
        tmp_path / "m.jsonl",
        [made("fresh", FETTLE, i, figures(100.0 * (1 + i))) for i in range(3)]
        + [made("peer", "plain", 2, figures(10.0))],
    )
    (row,) = claimed(records, [Claim("some", "fresh", "peer", "plain", 20)])
    assert (row.ours, row.theirs, row.ratios) == ([300.0], [10.0], [30.0])


def test_a_claim_without_a_peer_or_a_goal_is_shown_and_not_judged(tmp_path: Path) -> None:
    records = study(tmp_path)
    alone, free = claimed(
        records, [Claim("a", "fresh", "peer", "KerasTuner", 60), Claim("b", "fresh", "peer", "plain", None)]
    )
    assert (alone.ours, alone.theirs, alone.met) == (RATES[FETTLE], [], None)
    assert (free.met, free.goal) == (None, "")
    assert claimed(records, [Claim("c", "not measured", "peer", "plain", 1)]) == []


def test_a_peer_from_beside_another_version_is_told(tmp_path: Path) -> None:
    newer = [made("fresh", FETTLE, i, figures(1000.0), fettle="f2") for i in range(3)]
    (row,) = claimed(study(tmp_path, newer), [Claim("some", "fresh", "peer", "plain", 1)])
    assert row.ratios == [50.0, 50.0, 100.0]
    assert "earlier version" in row.note
    (row,) = claimed(study(tmp_path / "alone"), [Claim("some", "fresh", "peer", "plain", 1)])
    assert "earlier version" not in row.note


def test_a_comparison_says_each_figure_and_how_much_better_the_first_line_is(tmp_path: Path) -> None:
    never = [made("peer", "Ray Tune", i, figures(5.0, target_s=None, complete=12)) for i in range(2)]
    once = [made("peer", "KerasTuner", i, figures(10.0, target_s=[20.0, None][i])) for i in range(2)]
    lines = [
        Line("ours", "fresh", FETTLE),
        *(Line(s, "peer", s) for s in ("plain", "Ray Tune", "KerasTuner", "nobody")),
    ]
    found = compared(study(tmp_path, never + once), Comparison("some", tuple(lines)))
    assert [line[0] for line in found] == ["ours", "plain", "Ray Tune", "KerasTuner"]
    assert found[0][1:3] == ("24", "800 (700-900)")
    assert found[1][2] == "20 (10-20); 45 (35-80) x"
    assert found[2][1:4] == ("12", "5; 160 (140-180) x", "not reached")
    assert found[3][3] == "20, reached in 1 of 2; 140 x"
    assert found[3][4] == "0.980"


@pytest.mark.parametrize(
    ("value", "text"), [(0.98349, "0.983"), (14.62, "14.6"), (1234.4, "1234"), (0.0016, "0.002"), (-0.5, "-0.500")]
)
def test_figures_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_have_no_ratio_and_rates_are_ours_over_theirs() -> None:
    assert Row("accuracy", "share", [0.9], [0.8]).ratios == []
    assert Row("rate", "trials/min", [10.0], [5.0]).ratios == [2.0]
    assert Row("cost", "ms", [10.0], [5.0]).ratios == [0.5]


def test_most_trials_at_once_are_counted_from_starts_and_ends() -> None:
    def trial(start: int, end: int | None) -> dict[str, str | None]:
        at = "2026-01-01T00:00:{:02}Z"
        return {"started_at": at.format(start), "finished_at": None if end is None else at.format(end)}

    assert in_flight([trial(0, 10), trial(1, 5), trial(4, 6), trial(6, 9), trial(7, None)]) == 3
    assert in_flight([trial(0, 5), trial(5, 8)]) == 1
    assert in_flight([]) == 0


# -- rows of their own kind -------------------------------------------------------------------------------------------


def best(values: list[float], row: str, side: str) -> list[Record]:
    return [made(row, side, i, figures(1.0, best=value), settings={"trials": 60}) for i, value in enumerate(values)]


def test_quality_is_met_where_the_interval_of_the_difference_is_not_below_zero(tmp_path: Path) -> None:
    theirs = best([0.970, 0.972, 0.974, 0.976], accuracy.PEER, "plain")
    equal = best([0.970, 0.972, 0.972, 0.974], accuracy.ROW, FETTLE)
    worse = best([0.950, 0.951, 0.952, 0.953], accuracy.ROW, FETTLE)
    (row,) = accuracy.rows(written(tmp_path / "equal.jsonl", equal + theirs))
    assert row.met is True
    assert "4 seeds" in row.name
    assert "means 0.9720 and 0.9730; difference -0.0010" in row.note
    (row,) = accuracy.rows(written(tmp_path / "worse.jsonl", worse + theirs))
    assert row.met is False
    assert accuracy.rows(Records(tmp_path / "nothing.jsonl")) == []


def test_memory_is_flat_or_recycled_and_no_trial_is_lost(tmp_path: Path) -> None:
    def row(samples: list[tuple[int, dict[str, float]]], complete: int = 2000) -> Row:
        settings = {"trials": 2000, "settled": 200}
        found = {"samples": samples, "complete": complete}
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        return memory.rows(written(path, [made(memory.ROW, FETTLE, 0, found, settings=settings)]))[0]

    flat = row([(0, {"7": 100.0}), (210, {"7": 500.0}), (1100, {"7": 540.0}), (2000, {"7": 530.0})])
    assert flat.met is True
    assert flat.ours == pytest.approx([8.0])
    grown = [(210, {"7": 500.0}), (1100, {"7": 600.0}), (2000, {"7": 700.0})]
    assert row(grown).met is False
    recycled = [(210, {"7": 500.0}), (1100, {"7": 600.0}), (1200, {"8": 300.0}), (2000, {"8": 310.0})]
    assert row(recycled).met is True
    assert row(recycled, complete=1999).met is False


# -- the page and the command -----------------------------------------------------------------------------------------


def full(tmp_path: Path) -> Records:
    """Something of the digits part and of a part with rows of its own."""
    more = {"versions": {"keras-tuner": "1.4"}, "at": "2026-01-03T00:00:00+00:00"}
    found = [made(digits.FRESH, FETTLE, i, figures(700.0 + i), settings={"trials": 1200}) for i in range(3)]
    found += [made(digits.PEER, digits.PLAIN, i, figures(10.0)) for i in range(3)]
    found += [made(digits.PEER, digits.KERAS_TUNER, 0, figures(9.0), **more)]
    rows = [{"name": "up | ready", "unit": "s", "ours": [1.5], "goal": "<= 2.5 s", "met": True}]
    found += [made("startup", FETTLE, 0, {"rows": rows}, describe="v1")]
    return written(tmp_path / "m.jsonl", found)


def test_the_page_is_made_of_the_records_alone(tmp_path: Path) -> None:
    records = full(tmp_path)
    page = report.page(records, command.PARTS)
    assert page == report.page(Records(tmp_path / "m.jsonl"), command.PARTS)
    assert "Some CPU, 2 cores" in page
    assert "2026-01-02 to 2026-01-03" in page
    assert "Fettle at v0, v1." in page
    assert "keras-tuner 1.4" in page
    assert "| plain Optuna + Keras | 24 | 10; 70.1 (70-70.2) x |" in page
    assert "| digits MLP, 1,200 trials, fresh service | trials/min | 701 (700-702) | 10 |" in page
    assert "| up / ready | s | 1.5 |" in page
    assert "$" not in page


def test_the_command_writes_the_page_and_fails_where_a_goal_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full(tmp_path)
    page = tmp_path / "page.md"
    common = ["--report", "--results", str(tmp_path / "m.jsonl"), "--page", str(page)]
    assert command.main(common) == 0
    assert page.read_text() == report.page(Records(tmp_path / "m.jsonl"), command.PARTS)
    assert "Goals" in capsys.readouterr().out
    slow = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[-1])
    slow["figures"]["rows"][0] |= {"ours": [9.0], "met": False}
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write(json.dumps(slow) + "\n")
    assert command.main(common) == 1
    assert command.main([*common, "--only", "digits"]) == 0


def test_parts_are_chosen_by_name_and_unknown_ones_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert [part.name for part in command.chosen("digits, startup")] == ["startup", "digits"]
    assert command.chosen("") == list(command.PARTS)
    with pytest.raises(SystemExit) as left:
        command.main(["--only", "digits,nonsense"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "Expected parts among" in said
    assert "digits" in said
    assert said.rstrip().endswith("Received: nonsense")


def test_names_of_parts_are_unique_and_documented_in_the_help() -> None:
    names = [part.name for part in command.PARTS]
    assert len(set(names)) == len(names)
    assert all(name in command.parser().format_help() for name in names)
