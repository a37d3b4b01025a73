"""Definitions made of what families, samplers and pruners declare: most can be run, none is written by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from app.domain.families import FAMILIES, Hyperparameter
from app.domain.families.untrained import DIMENSIONS, TEST_FUNCTIONS
from app.tuning.options import Choice
from app.tuning.pruners import pruners
from app.tuning.samplers import samplers

LARGE = {"units": 48, "hidden_layers": 3, "batch_size": 128, "gradient_accumulation_steps": 4, "warmup_epochs": 1.0}
"""Bounds that keep networks of a test small."""
MOST = 12
"""Options that are counts: a population or a rung beyond the budget is never reached."""


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers as people write them, between bounds that may be far apart."""
    usual = [x for x in (0.0, 1e-4, 0.01, 0.1, 0.5, 0.9, 1.0, 2.0, 10.0, low, high) if low <= x <= high]
    return st.sampled_from(usual) | st.floats(low, high, allow_subnormal=False)


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of an option, by its JSON Schema; counts are small ones."""
    if "anyOf" in schema:
        return st.one_of(*map(of_schema, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    low = schema.get("minimum", schema.get("exclusiveMinimum", -10))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 10))
    if schema.get("type") == "integer":
        return st.integers(int(low), max(int(low), min(int(high), MOST)))
    if schema.get("type") == "number":
        return numbers(low, high)
    if schema.get("type") == "boolean":
        return st.booleans()
    return st.just(schema["default"]) if "default" in schema else st.none()


@st.composite
def chosen(draw: st.DrawFn, offers: list[Choice]) -> dict[str, Any]:
    """A sampler or pruner with some of its options."""
    choice = draw(st.sampled_from(offers))
    properties = choice.options.get("properties", {})
    required = set(choice.options.get("required", []))
    given = required | (draw(st.sets(st.sampled_from(sorted(properties)), max_size=3)) if properties else set())
    return {"name": choice.name, "options": {n: draw(of_schema(properties[n])) for n in sorted(given)}}


@st.composite
def ranges(draw: st.DrawFn, low: float, high: float, *, whole: bool = False) -> dict[str, Any]:
    """A searched range within bounds: plain, stepped or logarithmic."""
    value = st.integers(int(low), int(high)) if whole else numbers(low, high)
    first, last = sorted(draw(st.lists(value, min_size=2, max_size=2, unique=True)))
    kind = draw(st.sampled_from(["plain", "plain", "log", "step"]))
    found: dict[str, Any] = {"type": "int" if whole else "float", "low": first, "high": last}
    if kind == "log" and first > 0:
        found["log"] = True
    elif kind == "step" and last > first:
        steps = draw(st.integers(1, 5))
        found["step"] = max(1, (last - first) // steps) if whole else (last - first) / steps
        found["high"] = first + found["step"] * ((last - first) // found["step"]) if whole else last
    return found


@st.composite
def hyperparameter(draw: st.DrawFn, declared: Hyperparameter) -> Any:
    """A fixed value of a declared hyperparameter, or a search over some."""
    if declared.kind in ("categorical", "bool"):
        values = list(declared.choices) if declared.kind == "categorical" else [True, False]
        some = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
        return some[0] if draw(st.booleans()) else {"type": "categorical", "choices": some}
    low, high = declared.low, min(declared.high, LARGE.get(declared.name, declared.high))
    whole = declared.kind == "int"
    if low < high and draw(st.booleans()):
        return draw(ranges(low, high, whole=whole))
    return draw(st.integers(int(low), int(high)) if whole else numbers(low, high))


@st.composite
def training(draw: st.DrawFn, metrics: list[str], epochs: int) -> dict[str, Any]:
    """How trials are trained: `metrics` may stop them early."""
    made: dict[str, Any] = {"epochs": draw(st.integers(1, epochs)), "seed": draw(st.integers(0, 3))}
    made["select_epoch"] = draw(st.sampled_from(["best", "last"]))
    made["deterministic"] = draw(st.integers(0, 7)) == 0
    if draw(st.booleans()):
        made["early_stopping"] = {
            "metric": draw(st.sampled_from(metrics)),
            "patience": draw(st.integers(0, 2)),
            "min_delta": draw(st.sampled_from([0.0, 0.1])),
        }
    return made


@st.composite
def goals(draw: st.DrawFn, metrics: list[str]) -> dict[str, Any]:
    """Objectives and constraints on some of `metrics`."""
    named = draw(st.lists(st.sampled_from(metrics), min_size=1, max_size=2, unique=True))
    objectives: list[dict[str, Any]] = [
        {"metric": n, "direction": draw(st.sampled_from(["minimize", "maximize"]))} for n in named
    ]
    if len(named) == 1 and draw(st.integers(0, 3)) == 0:
        objectives[0]["target"] = draw(st.sampled_from([-1.0, 0.0, 1.0, 100.0]))
    constraints = [{"metric": draw(st.sampled_from(metrics)), draw(st.sampled_from(["min", "max"])): 1.0}]
    return {"objectives": objectives, "constraints": constraints if draw(st.booleans()) else []}


@st.composite
def execution(draw: st.DrawFn) -> dict[str, Any]:
    """How trials are run."""
    made = {
        "parallel_trials": draw(st.sampled_from(["auto", 1, 3])),
        "max_attempts": draw(st.integers(1, 3)),
        "duplicates": draw(st.sampled_from(["allow", "allow", "reuse", "resample"])),
        "keep_models": draw(st.sampled_from(["best", "all", "none"])),
        "checkpoints": draw(st.sampled_from(["auto", "off"])),
    }
    if draw(st.integers(0, 7)) == 0:
        made["trial_timeout_seconds"] = draw(st.sampled_from([0.001, 30.0]))
    return made


def algorithms() -> st.SearchStrategy[dict[str, Any]]:
    """A sampler and a pruner; `gp` apart, which is not everywhere."""
    offered = [choice for choice in samplers() if choice.name != "gp"]
    offered += [choice for choice in offered if choice.name in ("tpe", "random", "qmc", "nsgaii")]
    return st.fixed_dictionaries({"sampler": chosen(offered)}, optional={"pruner": chosen(pruners())})


@st.composite
def points(draw: st.DrawFn) -> dict[str, Any]:
    """Coordinates of a test function, or of several that want different ones."""
    functions = draw(st.lists(st.sampled_from(TEST_FUNCTIONS), min_size=1, max_size=2, unique=True))
    wanted = DIMENSIONS.get(functions[0], draw(st.integers(1, 3)))
    searched = len(functions) > 1
    made: dict[str, Any] = {"function": {"type": "categorical", "choices": functions} if searched else functions[0]}
    for i in range(wanted):
        bound = draw(st.sampled_from([1.0, 5.0, 1e12]))
        kind = draw(st.sampled_from(["float", "float", "int", "categorical", "fixed"]))
        if kind == "fixed":
            made[f"x{i}"] = draw(numbers(-bound, bound))
            continue
        values = st.lists(numbers(-bound, bound), min_size=1, max_size=3, unique=True)
        coordinate = (
            {"type": "categorical", "choices": draw(values), "ordered": draw(st.booleans())}
            if kind == "categorical"
            else draw(ranges(-bound, bound, whole=kind == "int"))
        )
        if searched and draw(st.integers(0, 2)) == 0:
            coordinate["when"] = {"function": functions[:1]}
        made[f"x{i}"] = coordinate
    return made


@st.composite
def functions(draw: st.DrawFn) -> dict[str, Any]:
    """A study of the family `function`; its name is for the caller to give."""
    budget = st.fixed_dictionaries(
        {"trials": st.integers(1, 12)},
        optional={"no_improvement_trials": st.integers(1, 5), "device_seconds": st.sampled_from([0.001, 5.0])},
    )
    return {
        "model": {"family": "function"},
        "hyperparameters": draw(points()),
        "training": draw(training(["value"], 5)),
        "budget": draw(budget),
        "execution": draw(execution()),
        **draw(goals(["value"])),
        **draw(algorithms()),
    }


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """A study of the family `mlp` on a small data set: two trials of at most two epochs."""
    declared = {h.name: h for h in FAMILIES["mlp"].hyperparameters}
    given = draw(st.sets(st.sampled_from(sorted(declared)), max_size=6))
    dataset, metric = draw(st.sampled_from([("wine", "accuracy"), ("diabetes", "mae")]))
    metrics = ["val_loss", f"val_{metric}", "loss", "parameter_count"]
    return {
        "model": {"family": "mlp"},
        "dataset": {"name": dataset, "test_fraction": draw(st.sampled_from([0.0, 0.2]))},
        "hyperparameters": {name: draw(hyperparameter(declared[name])) for name in sorted(given)},
        "training": draw(training(["val_loss", f"val_{metric}"], 2)),
        "budget": {"trials": 2},
        "execution": draw(execution()),
        **draw(goals(metrics)),
        **draw(algorithms()),
    }
