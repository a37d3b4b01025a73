"""The record of many rounds: what was seen of each case, one line of JSON each, so that a later run goes on from there.

A line is `[round, case, outcome, seconds, commit]`. What stands there was seen at that commit, and is not run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WORST = ("failed", "skipped", "passed")
"""Outcomes of a case's phases; the first of these that one of them had is the case's."""
SEEN = "crash_seen"
"""What a process that runs tests is told by the one that records."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One case in one round, as it ended."""

    number: int
    case: str
    outcome: str
    seconds: float
    commit: str


def read(path: Path) -> list[Seen]:
    """What was seen so far. A line that was cut off, as its run was, doesn't count."""
    if not path.exists():
        return []
    seen = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            seen.append(Seen(*json.loads(line)))
    return seen


def split(nodeid: str) -> tuple[int, str]:
    """The round in a test's id, and the id of its case: the same in every round.

    >>> split("tests/crash/test_storm.py::test_a_storm[sqlite-round7]")
    (7, 'tests/crash/test_storm.py::test_a_storm[sqlite]')
    """
    head, bracket, tail = nodeid.partition("[")
    parts = tail.removesuffix("]").split("-")
    number = next(int(part.removeprefix("round")) for part in parts if part.startswith("round"))
    others = "-".join(part for part in parts if part != f"round{number}")
    return number, f"{head}{bracket}{others}]" if others else head


class Recorder:
    """A plugin of pytest: notes each case as soon as it ended, and says at the end what was seen in all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
        self._commit = _commit(path)
        self._phases: dict[str, list[pytest.TestReport]] = {}
        self._cases: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a process that runs tests what was seen before: all of them have to choose the same tests."""
        node.workerinput[SEEN] = [[one.number, one.case] for one in read(self.path)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._cases.update(split(nodeid)[1] for nodeid in ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of a phase of a case; its last one ends it."""
        phases = self._phases.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when != "teardown":
            return
        del self._phases[report.nodeid]
        number, case = split(report.nodeid)
        outcome = next(word for word in WORST if any(phase.outcome == word for phase in phases))
        seconds = round(sum(phase.duration for phase in phases), 1)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([number, case, outcome, seconds, self._commit]) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section(f"rounds in {self.path}")
        for line in summary(read(self.path), self._cases):
            terminalreporter.write_line(line)


def _commit(path: Path) -> str:
    """The commit that is checked out, with a plus where the tree differs from it in more than the record itself."""
    changed = _git("diff", "--name-only", "HEAD").splitlines()
    is_other = any(ROOT / name != path.absolute() for name in changed)
    return f"{_git('rev-parse', '--short=9', 'HEAD').strip()}{'+' if is_other else ''}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def chosen(nodeids: Iterable[str], seen: Iterable[tuple[int, str]]) -> list[str]:
    """The tests that were not seen, round after round."""
    known = set(seen)
    return sorted((one for one in nodeids if split(one) not in known), key=lambda nodeid: split(nodeid)[0])


def summary(seen: Iterable[Seen], cases: Collection[str] = ()) -> Iterator[str]:
    """What was seen, a line a round and a line for each case that failed.

    `cases` are those of a whole round; all that were ever seen where none are given.
    """
    rounds: dict[int, list[Seen]] = {}
    for one in seen:
        rounds.setdefault(one.number, []).append(one)
    wanted = set(cases) or {one.case for ended in rounds.values() for one in ended}
    whole = 0
    for number, ended in sorted(rounds.items()):
        outcomes = Counter(one.outcome for one in ended)
        told = ", ".join(f"{outcomes[word]} {word}" for word in reversed(WORST) if outcomes[word])
        commits = ", ".join(dict.fromkeys(one.commit for one in ended))
        missing = len(wanted - {one.case for one in ended})
        whole += not missing
        yield f"round {number}: {told}{f', {missing} not run' if missing else ''} (at {commits})"
        yield from (f"  failed: {one.case} (at {one.commit})" for one in ended if one.outcome == "failed")
    yield f"{whole} whole rounds of {len(wanted)} cases"


if __name__ == "__main__":
    print("\n".join(summary(read(Path(sys.argv[1])))))
