"""`python -m bench`: measure what is not yet recorded, print the tables, write `docs/benchmarks.md`.

Leaves with 1 where a goal is missed or a measurement failed. `--quick` measures a little of everything anew, and writes
no page.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import accuracy, asks, cnn, digits, memory, overhead, pages, quality, report, spoken, startup, stream, text
from bench.measure import adopt_orphans
from bench.record import FETTLE, RESULTS, Records
from bench.tasks import PEERS_PYTHON, Options, Part, Run, whole

QUICK_RESULTS = RESULTS.with_name("quick.jsonl")

PARTS: tuple[Part, ...] = (
    whole("startup", "startup.py", lambda o: startup.rows(o.repetitions)),
    whole("overhead", "overhead.py", lambda o: overhead.rows(o.repetitions, 100 if o.quick else 300)),
    whole("pages", "pages.py", lambda o: pages.rows(o.repetitions, 5_000 if o.quick else pages.TRIALS)),
    whole("stream", "stream.py", lambda o: stream.rows(1 if o.quick else o.repetitions, 5.0 if o.quick else 20.0)),
    whole("asks", "asks.py", lambda o: asks.rows(o.repetitions)),
    digits.PART,
    cnn.SMALL_PART,
    cnn.LARGE_PART,
    cnn.RACE_PART,
    text.PART,
    spoken.PART,
    memory.PART,
    accuracy.PART,
    whole("quality", "quality.py", lambda o: quality.rows(o.repetitions)),
)
"""What the bench consists of, in the order in which it is measured and shown. A part is added by a line here."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument("--only", default="", help=f"comma-separated parts: {', '.join(part.name for part in PARTS)}")
    made.add_argument("--repetitions", type=int, default=None, help="of each measurement: 3, and 1 in a quick run")
    made.add_argument("--quick", action="store_true", help="a small version in five minutes; forgets the last one")
    made.add_argument("--again", action="store_true", help="measure also what is recorded")
    made.add_argument(
        "--keep-peers",
        action="store_true",
        help="keep peers' figures taken beside another version of Fettle: not in alternation, and told so",
    )
    made.add_argument("--report", action="store_true", help="measure nothing: tables and page from what is recorded")
    made.add_argument("--results", type=Path, default=None, help="the file of records")
    made.add_argument("--page", type=Path, default=report.PAGE, help="the page to write")
    made.add_argument("--peers-python", type=Path, default=PEERS_PYTHON, help="an interpreter with KerasTuner and Ray")
    return made


def chosen(names: str) -> list[Part]:
    """The parts of those names, in the bench's order; all where none is named.

    Raises:
        ValueError: there is no such part.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [part.name for part in PARTS]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"Expected parts among {', '.join(known)}. Received: {', '.join(unknown)}")
    return [part for part in PARTS if not wanted or part.name in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where every goal of the chosen parts is met and every measurement came to its end."""
    parse = parser()
    given = parse.parse_args(arguments)
    try:
        parts = chosen(given.only)
    except ValueError as error:
        parse.error(str(error))
    repetitions = given.repetitions or (1 if given.quick else 3)
    results = given.results or (QUICK_RESULTS if given.quick else RESULTS)
    if given.quick and not given.report:
        results.unlink(missing_ok=True)
    records = Records(results)
    run = Run(Options(repetitions, given.quick, given.again, given.keep_peers, given.peers_python.absolute()), records)
    if not given.report:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a termination stops services and peers too
        adopt_orphans()
        try:
            for part in parts:
                run.part(part)
        except KeyboardInterrupt:
            print("Stopped." if given.quick else f"Stopped. The same command goes on from what is kept in {results}.")
            return 130
    rows = report.show(records, parts, verdicts=not given.quick)
    if not given.quick and any(record.side == FETTLE for record in records.everything()):
        report.write(records, PARTS, given.page)
        print(f"Wrote {given.page}")
    for failure in run.failures:
        print(f"FAILED {failure}")
    return 1 if run.failures or any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
