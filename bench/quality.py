"""Quality of sampling with trials in flight, against plain Optuna: `python -m bench.quality`.

Every run (function, seed, way of running) is appended to `bench/results/quality.jsonl` as it ends; runs that are there
are not made again, so that a broken-off measurement goes on where it was. `--page` writes the tables into a page.
Needs `coco-experiment`.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from app.store.engine import Database
from bench.analytic import FUNCTIONS, Fettle, Optuna, Problem, scratch, search
from bench.record import RESULTS
from bench.table import Row

RUNS = RESULTS.parent / "quality.jsonl"
TRIALS, IN_FLIGHT, SEEDS = 150, 16, 20
MARGIN = 1.1
"""The goal: a median regret at most so many times that of Optuna's sampler at equal parallelism."""
LEVEL = 0.05
RATE_RATIO = 35.0
"""How many trials Fettle runs in the time of one of plain Optuna with Keras: the digits row of the peer bench."""
OURS, STACKED, THEIRS, SEQUENTIAL, RANDOM = "fettle", "fettle in stacks", "optuna", "optuna one by one", "random"
WAYS = (OURS, STACKED, THEIRS, SEQUENTIAL, RANDOM)
PACKAGES = ("optuna", "numpy", "scipy", "coco-experiment")
BLOCK = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Plan:
    """What is measured: of each sampler, `seeds` runs of `trials` trials on every function, `in_flight` at once."""

    sampler: str = "tpe"
    trials: int = TRIALS
    in_flight: int = IN_FLIGHT
    seeds: int = SEEDS


Curves = dict[str, dict[int, dict[int, list[float]]]]
"""The least regret after each trial, by way of running, function and seed."""


def versions() -> dict[str, str]:
    """The packages that proposals or values come from."""
    return {name: version(name) for name in PACKAGES}


def run(database: Database, plan: Plan, way: str, function: int, seed: int) -> list[float]:
    """The least regret after each trial of one run."""
    problem, name = Problem(function, seed), named(plan, way)
    if way in {OURS, STACKED}:
        study = Fettle(database, f"run-{time.time_ns()}", plan.sampler, seed, plan.trials)
        return search(problem, study, plan.trials, plan.in_flight, plan.in_flight if way == STACKED else 1)
    return search(problem, Optuna(str(name["sampler"]), seed), plan.trials, int(name["in_flight"]))


def named(plan: Plan, way: str) -> dict[str, str | int]:
    """What tells the runs of one way from others, seed and function apart: what is shared by plans is run once."""
    sampler = "random" if way == RANDOM else plan.sampler
    in_flight = 1 if way in {RANDOM, SEQUENTIAL} else plan.in_flight
    return {"way": way, "sampler": sampler, "trials": plan.trials, "in_flight": in_flight}


def recorded(plan: Plan) -> Curves:
    """The runs of the plan that were made with the packages' present versions."""
    curves: Curves = {way: {function: {} for function in FUNCTIONS} for way in WAYS}
    wanted = {way: {**named(plan, way), "versions": versions()} for way in WAYS}
    for line in RUNS.read_text("utf-8").splitlines() if RUNS.exists() else []:
        found = json.loads(line)
        if wanted[found["way"]].items() <= found.items() and found["seed"] < plan.seeds:
            curves[found["way"]][found["function"]][found["seed"]] = found["regret"]
    return curves


def measure(plan: Plan) -> Curves:
    """All runs of the plan, the missing ones made now: seed by seed, the ways in alternation."""
    curves, today = recorded(plan), datetime.now(UTC).date().isoformat()
    RUNS.parent.mkdir(exist_ok=True)
    with scratch() as database, RUNS.open("a", encoding="utf-8") as out:
        for seed, function, way in _missing(plan, curves):
            regret = [float(f"{value:.6g}") for value in run(database, plan, way, function, seed)]
            curves[way][function][seed] = regret
            run_of = {**named(plan, way), "function": function, "seed": seed}
            out.write(json.dumps({**run_of, "versions": versions(), "at": today, "regret": regret}) + "\n")
            out.flush()
    return curves


def _missing(plan: Plan, curves: Curves) -> Iterator[tuple[int, int, str]]:
    for seed in range(plan.seeds):
        for function in FUNCTIONS:
            for way in WAYS:
                if seed not in curves[way][function]:
                    yield seed, function, way


# What the runs say


def normalised(curves: Curves, way: str, function: int, after: int | None = None) -> list[float]:
    """The regret of each seed's run, or of its first trials, in units of random search's median at the end."""
    unit = statistics.median(curve[-1] for curve in curves[RANDOM][function].values())
    return [curve[-1 if after is None else after - 1] / unit for _, curve in sorted(curves[way][function].items())]


@dataclass(frozen=True)
class Comparison:
    """Normalised regrets on one function, seed by seed, and the p-values of the two questions, before correction."""

    function: int
    ours: list[float]
    theirs: list[float]
    p_worse: float
    """That ours are not more than `MARGIN` times theirs."""
    p_different: float

    @property
    def ratio(self) -> float:
        """Our median over theirs: below 1 is better."""
        return statistics.median(self.ours) / statistics.median(self.theirs)


def compare(curves: Curves, a: str, b: str, after: tuple[int | None, int | None] = (None, None)) -> list[Comparison]:
    """Wilcoxon's signed-rank test of `a` against `b` on each function, over instances that both were run on."""
    from scipy.stats import wilcoxon

    found = []
    for function in FUNCTIONS:
        ours, theirs = normalised(curves, a, function, after[0]), normalised(curves, b, function, after[1])
        gaps = [math.log(x / y) for x, y in zip(ours, theirs, strict=True)]
        worse = wilcoxon([gap - math.log(MARGIN) for gap in gaps], alternative="greater").pvalue
        different = wilcoxon(gaps).pvalue if any(gaps) else 1.0
        found.append(Comparison(function, ours, theirs, float(worse), float(different)))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm, "A simple sequentially rejective multiple test procedure")."""
    corrected, most = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = most
    return corrected


def overall(found: Sequence[Comparison]) -> tuple[float, float]:
    """The ratio of the medians over all functions and instances, and the geometric mean of the functions' ratios."""
    ours, theirs = ([x for c in found for x in part(c)] for part in (lambda c: c.ours, lambda c: c.theirs))
    pooled = statistics.median(ours) / statistics.median(theirs)
    return pooled, statistics.geometric_mean(c.ratio for c in found)


def is_met(found: Sequence[Comparison]) -> bool:
    """Whether the median ratio keeps the margin and no function is significantly beyond it."""
    return overall(found)[0] <= MARGIN and min(holm([c.p_worse for c in found])) > LEVEL


def rows(repetitions: int) -> list[Row]:
    """The claim as one row of the bench: every instance with three repetitions, a quarter of them with one."""
    plan = Plan(seeds=SEEDS if repetitions >= 3 else SEEDS // 4)
    found = compare(measure(plan), OURS, THEIRS)
    row = Row(
        f"regret of tpe, {len(FUNCTIONS)} analytic functions, {plan.in_flight} in flight, {plan.trials} trials",
        "of random search's",
        [statistics.median(c.ours) for c in found],
        [statistics.median(c.theirs) for c in found],
        f"pooled median <= {MARGIN:g} x the peer's, on no function beyond it (Holm)",
        is_met(found),
        f"one figure a function; pooled ratio {overall(found)[0]:.2f}; peer: Optuna's ask and tell, as many in flight",
    )
    return [row]


# The page


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows_ = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows_) + "\n"


def _by_function(found: Sequence[Comparison]) -> str:
    worse, different = holm([c.p_worse for c in found]), holm([c.p_different for c in found])
    lines = [
        [
            f"f{c.function} {FUNCTIONS[c.function]}",
            f"{statistics.median(c.ours):.3g}",
            f"{statistics.median(c.theirs):.3g}",
            f"{c.ratio:.2f}",
            f"{worse[i]:.2g}",
            f"{different[i]:.2g}",
        ]
        for i, c in enumerate(found)
    ]
    header = ["function", "Fettle", "Optuna", "ratio", f"p, worse than {MARGIN:g} x", "p, different"]
    return _table(header, lines)


def _line(name: str, found: Sequence[Comparison]) -> list[str]:
    pooled, mean = overall(found)
    corrected = holm([c.p_different for c in found])
    better = sum(p <= LEVEL and c.ratio < 1 for p, c in zip(corrected, found, strict=True))
    worse = sum(p <= LEVEL and c.ratio > 1 for p, c in zip(corrected, found, strict=True))
    return [name, f"{pooled:.2f}", f"{mean:.2f}", str(better), str(worse)]


def summary(plan: Plan, curves: Curves, rate_ratio: float) -> str:
    """The tables of one plan, as Markdown."""
    found = compare(curves, OURS, THEIRS)
    early = max(1, round(plan.trials / rate_ratio))
    lines = [
        _line(f"Optuna, {plan.in_flight} in flight", found),
        _line(f"the same, ours in stacks of {plan.in_flight} that end together", compare(curves, STACKED, THEIRS)),
        _line("Optuna one by one, equal trials", compare(curves, OURS, SEQUENTIAL)),
        _line(
            f"Optuna one by one, equal time at {rate_ratio:g} trials to one: its first {early}",
            compare(curves, OURS, SEQUENTIAL, (None, early)),
        ),
        _line("random search, equal trials", compare(curves, OURS, RANDOM)),
    ]
    header = ["Fettle against", "ratio of medians", "mean ratio", "functions better", "worse"]
    return (
        f"\n### `{plan.sampler}`, {plan.in_flight} in flight, {plan.trials} trials, {plan.seeds} instances each\n\n"
        f"{_by_function(found)}\n{_table(header, lines)}"
    )


def machine() -> str:
    """When, where and with what, in a sentence."""
    days = sorted({json.loads(line)["at"] for line in RUNS.read_text("utf-8").splitlines()})
    packages = ", ".join(f"{name} {found}" for name, found in versions().items())
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"\nMeasured {when} on {platform.machine()}, Python {platform.python_version()}, {packages}.\n"


def write(page: Path, text: str) -> None:
    """Put the tables between the page's marks."""
    before = page.read_text("utf-8")
    if not BLOCK.search(before):
        raise ValueError(f"Expected a page with <!-- measured --> and <!-- end -->. Received: {page}")
    page.write_text(BLOCK.sub(lambda _: text, before), "utf-8")


def main() -> None:
    """Measure what is missing, print the summary, write the page where one is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument(
        "--plans",
        default=f"tpe:{IN_FLIGHT}",
        help="comma-separated: sampler (tpe, random, nsgaii) and trials in flight",
    )
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="instances of each function")
    parser.add_argument("--rate-ratio", type=float, default=RATE_RATIO, help="for the comparison at equal time")
    parser.add_argument("--page", type=Path, help="a Markdown file with <!-- measured --> and <!-- end -->")
    options = parser.parse_args()
    texts = []
    for sampler, in_flight in (part.split(":") for part in options.plans.split(",")):
        plan = Plan(sampler, options.trials, int(in_flight), options.seeds)
        texts.append(summary(plan, measure(plan), options.rate_ratio))
        print(texts[-1], flush=True)
    if options.page:
        write(options.page, "".join([machine(), *texts]))


if __name__ == "__main__":
    main()
