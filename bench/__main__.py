"""`python -m bench [--quick] [--only …]`: measure, print one table, exit 1 where a goal is missed."""

from __future__ import annotations

import argparse
import sys

from bench import digits, overhead, startup
from bench.table import Row, show


def main() -> int:
    """The exit status: 0 where every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repetition, fewer trials")
    parser.add_argument("--only", default="startup,overhead,digits", help="comma-separated parts")
    options = parser.parse_args()
    repetitions = 1 if options.quick else 3
    parts = {
        "startup": lambda: startup.rows(repetitions),
        "overhead": lambda: overhead.rows(repetitions, 100 if options.quick else 300),
        "digits": lambda: digits.rows(repetitions, 12 if options.quick else digits.TRIALS),
    }
    rows: list[Row] = []
    for name in options.only.split(","):
        print(f"measuring {name} …", flush=True)
        rows += parts[name]()
    show(rows)
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
