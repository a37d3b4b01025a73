"""Many small trials in one trainer: its memory stays flat, or it is recycled without losing a trial."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from bench.digits import WORK
from bench.record import FETTLE, Records
from bench.service import POLL_S, service
from bench.table import Row
from bench.tasks import Options, Part, Task
from bench.works import definition

ROW = "memory"
EPOCHS = 2


@dataclass(frozen=True)
class Sizes:
    """Trials in all, between two looks at the memory, and until it is to be flat: by then every program is compiled."""

    trials: int = 2_000
    every: int = 100
    settled: int = 200


QUICK = Sizes(120, 20, 40)
GOAL_GROWTH = 0.10
STALLED_S = 300.0


def _measure(sizes: Sizes) -> Mapping[str, Any]:
    """Memory of the trainers after about every hundred trials: `samples` of [trials ended, {process id: MB}]."""
    study = definition(WORK, "memory", 0, sizes.trials, training={"epochs": EPOCHS, "seed": 0})
    study["sampler"] = {"name": "random", "options": {"seed": 0}}
    samples: list[tuple[int, dict[str, float]]] = []
    with service() as running:
        running.wait_for_trainer()
        study_id = running.submit(study)
        moved = time.monotonic()
        while True:
            found = running.study(study_id)
            ended = sum(found["progress"][state] for state in ("complete", "pruned", "fail"))
            if not samples or ended >= samples[-1][0] + sizes.every or found["finished_at"]:
                samples.append((ended, {str(pid): mb for pid, mb in running.trainers().items()}))
                moved = time.monotonic()
            if found["finished_at"]:
                break
            if time.monotonic() - moved > STALLED_S:
                raise RuntimeError(f"Expected {sizes.every} trials in {STALLED_S:g} s. Received {ended} so far.")
            time.sleep(POLL_S)
    return {ROW: {"samples": samples, "complete": found["progress"]["complete"]}}


def tasks(options: Options, _records: Records) -> Iterator[Task]:
    """One study; it is not repeated."""
    sizes = QUICK if options.quick else Sizes()
    settings = WORK.settings(epochs_trained=EPOCHS, **asdict(sizes))
    yield Task((ROW,), FETTLE, 0, settings, partial(_measure, sizes))


def growth(samples: list[tuple[int, dict[str, float]]], settled: int) -> tuple[float, int]:
    """How much the largest trainer has grown since it was seen settled, as a share, and how many trainers there were.

    A trainer counts from its first sample after `settled` trials: a recycled one starts anew.
    """
    first: dict[str, float] = {}
    greatest = 0.0
    for ended, trainers in samples:
        if ended < settled:
            continue
        for pid, resident in trainers.items():
            base = first.setdefault(pid, resident)
            greatest = max(greatest, resident / base - 1)
    return greatest, len({pid for _, trainers in samples for pid in trainers})


def rows(records: Records) -> list[Row]:
    """Growth of resident memory after the first 200 trials."""
    found = []
    for record in records.latest(ROW, FETTLE):
        trials, settled, complete = record.settings["trials"], record.settings["settled"], record.figures["complete"]
        share, trainers = growth(record.figures["samples"], settled)
        name = f"{trials:,} small trials in one trainer: growth of memory after the first {settled}"
        row = Row(name, "%", [100 * share])
        row.goal = f"<= {100 * GOAL_GROWTH:g} %, or recycled, no trial lost"
        row.met = complete == trials and (share <= GOAL_GROWTH or trainers > 1)
        last = record.figures["samples"][-1][1]
        row.note = f"{complete:,} COMPLETE; trainers: {trainers}; at the end {max(last.values(), default=0):.0f} MB"
        found.append(row)
    return found


PART = Part("memory", tasks, rows)
