"""Writes `customers.csv`: 800 customers who never lived, and which of them left. `python examples/customers.py`.

Whether one leaves follows rules that no straight line draws: monthly contracts leave when they had to call for help,
long ones when they had nobody to call; in the south and west automatic payment keeps people, elsewhere it drives them
away; the youngest and the oldest leave sooner. One customer in twenty does the opposite.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

ROWS = 800
FIELDS = ("customer_id", "contract", "region", "age", "months", "calls", "autopay", "joined", "left")


def customer(number: int, draws: random.Random) -> list[object]:
    """One row."""
    contract = draws.choice(("monthly", "yearly", "two years"))
    region = draws.choice(("north", "east", "south", "west"))
    age, months, calls = draws.randint(18, 80), draws.randint(1, 60), draws.randint(0, 6)
    autopay = draws.random() < 0.5
    score = 1.6 if (calls >= 3) == (contract == "monthly") else -1.6
    score += 1.0 if autopay == (region in ("north", "east")) else -1.0
    score += 0.8 if abs(age - 49) > 20 else -0.8
    leaves = (score > 0) != (draws.random() < 0.05)
    told = "" if draws.random() < 0.06 else age
    joined = f"20{10 + (60 - months) // 12:02d}-{1 + (60 - months) % 12:02d}-01"
    return [
        f"C{number:05d}",
        contract,
        region,
        told,
        months,
        calls,
        str(autopay).lower(),
        joined,
        "yes" if leaves else "no",
    ]


def main() -> None:
    """Write the file beside this one."""
    draws = random.Random(7)
    with Path(__file__).with_name("customers.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(customer(number, draws) for number in range(ROWS))


if __name__ == "__main__":
    main()
