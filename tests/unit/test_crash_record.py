"""The record of rounds of crash tests: what was seen is noted once, and what wasn't is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash import record

STORM = "tests/crash/test_storm.py::test_a_storm"


def ended(nodeid: str, **outcomes: Any) -> list[pytest.TestReport]:
    phases = {"setup": "passed", "call": "passed", "teardown": "passed"} | outcomes
    return [
        pytest.TestReport(nodeid, (nodeid, 1, nodeid), {}, outcome, None, when, duration=1.25)
        for when, outcome in phases.items()
        if outcome is not None
    ]


def noted(path: Path, *cases: list[pytest.TestReport]) -> list[record.Seen]:
    recorder = record.Recorder(path)
    for reports in cases:
        for report in reports:
            recorder.pytest_runtest_logreport(report)
    return record.read(path)


@pytest.mark.parametrize(
    ("nodeid", "case"),
    [
        (f"{STORM}[round7]", (7, STORM)),
        (f"{STORM}[sqlite-round12]", (12, f"{STORM}[sqlite]")),
        (f"{STORM}[sqlite-round3-a-b]", (3, f"{STORM}[sqlite-a-b]")),
    ],
)
def test_a_case_has_one_name_in_all_rounds(nodeid: str, case: tuple[int, str]) -> None:
    assert record.split(nodeid) == case


def test_the_worst_of_its_phases_is_a_cases_outcome(tmp_path: Path) -> None:
    seen = noted(
        tmp_path / "rounds.jsonl",
        ended(f"{STORM}[a-round1]"),
        ended(f"{STORM}[b-round1]", teardown="failed"),
        ended(f"{STORM}[c-round1]", setup="skipped", call=None),
        ended(f"{STORM}[d-round1]", setup="failed", call=None),
    )
    assert [(one.case[-2], one.outcome) for one in seen] == [
        ("a", "passed"),
        ("b", "failed"),
        ("c", "skipped"),
        ("d", "failed"),
    ]
    assert seen[0].seconds == pytest.approx(3.8, abs=0.06)


def test_a_case_that_did_not_end_is_run_again_and_a_line_that_was_cut_off_too(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    noted(path, ended(f"{STORM}[a-round1]"), ended(f"{STORM}[b-round1]")[:2])
    with path.open("a") as file:
        file.write('[1, "tests/crash/test_storm.py::test_a_storm[b]')
    known = [(one.number, one.case) for one in record.read(path)]
    nodeids = [f"{STORM}[{case}-round{number}]" for case in "ab" for number in (1, 2)]
    assert record.chosen(nodeids, known) == [f"{STORM}[b-round1]", f"{STORM}[a-round2]", f"{STORM}[b-round2]"]


def test_a_summary_tells_whole_rounds_and_every_failure(tmp_path: Path) -> None:
    seen = noted(
        tmp_path / "rounds.jsonl",
        ended(f"{STORM}[a-round1]"),
        ended(f"{STORM}[b-round1]", call="failed"),
        ended(f"{STORM}[a-round2]"),
    )
    commit = seen[0].commit
    assert list(record.summary(seen)) == [
        f"round 1: 1 passed, 1 failed (at {commit})",
        f"  failed: {STORM}[b] (at {commit})",
        f"round 2: 1 passed, 1 not run (at {commit})",
        "1 whole rounds of 2 cases",
    ]


def test_a_line_cut_off_is_not_joined_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text('[1, "tests/crash/test_st')
    assert [one.case for one in noted(path, ended(f"{STORM}[a-round1]"))] == [f"{STORM}[a]"]
