"""Processes that are killed at a chosen step of a transaction: a statement, the COMMIT, or right after it.

`python -m tests.crash.mortal` reads orders, one JSON line each, and has a child of its own carry each out: the
child, forked with no connection open, does one operation on a study and dies at the step that the order names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.domain.trial import FailureReason, Reservation
from app.store import leases, turnover
from app.store.engine import Database
from tests.store.conftest import TTL_S, Bench, complete
from tests.support.processes import ROOT

DIED, DONE = "died", "done"


def die_at(target: Engine | type[Engine], step: int) -> None:
    """Kill this process at the step of that number, from 1: each statement, each COMMIT, and the moment after it."""
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(target, "before_cursor_execute", count)
    event.listen(target, "commit", count)
    event.listen(target, "reset", count)  # a connection goes back to the pool: its COMMIT is through


def _reserve(bench: Bench, _: Sequence[Reservation]) -> None:
    bench.reserve(2)


def _start(bench: Bench, held: Sequence[Reservation]) -> None:
    bench.start(held)


def _record(bench: Bench, held: Sequence[Reservation]) -> None:
    bench.record(*(bench.report(r, 0, 1.0 + r.number) for r in held))


def _finish(bench: Bench, held: Sequence[Reservation]) -> None:
    """As a worker does it: two ends and their last reports, and what it reserves along with them."""
    outcomes = [complete(r, 1.0 + r.number) for r in held]
    reports = [bench.report(r, 0, 1.0 + r.number) for r in held]
    with bench.database.write() as session:
        turnover.finish_and_reserve(session, bench.study_id, outcomes, reports, 2, "w1", TTL_S)


def _reap(bench: Bench, _: Sequence[Reservation]) -> None:
    bench.reap()


def _release(bench: Bench, held: Sequence[Reservation]) -> None:
    bench.act(leases.release, [(r.trial_id, r.token) for r in held], "RELEASED")


def _charge(bench: Bench, held: Sequence[Reservation]) -> None:
    pairs = [(r.trial_id, r.token) for r in held]
    bench.act(leases.charge, pairs, FailureReason.EXCEPTION, "TRAINER_CRASHED", "It died.")


OPERATIONS: dict[str, Callable[[Bench, Sequence[Reservation]], None]] = {
    f.__name__.removeprefix("_"): f for f in (_reserve, _start, _record, _finish, _reap, _release, _charge)
}


class Mortals:
    """Children to order about."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.mortal"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def act(self, bench: Bench, operation: str, held: Sequence[Reservation], step: int) -> str:
        """Have a child do the operation and die at the step: `died`, or `done` where there is no such step."""
        url = bench.database.url.render_as_string(hide_password=False)
        order = {"url": url, "study": [bench.study_id, bench.public_id], "held": [asdict(r) for r in held]}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order | {"operation": operation, "step": step}) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def _serve() -> None:
    for url in ("sqlite:///none.db", "postgresql://none/none"):
        Database(url).dispose()  # imports what the children need, and connects to nothing
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _obey(json.loads(line))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            answer = DIED
        else:
            answer = DONE if os.waitstatus_to_exitcode(status) == 0 else f"broken: {status}"
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _obey(order: dict[str, Any]) -> None:
    try:
        database = Database(order["url"])
        bench = Bench(database, *order["study"])
        held = [Reservation(**fields) for fields in order["held"]]
        die_at(database.engine, order["step"])
        OPERATIONS[order["operation"]](bench, held)
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as another server
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve()
