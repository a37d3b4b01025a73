"""Study definitions to go wrong from."""

from __future__ import annotations

from typing import Any

MLP: dict[str, Any] = {
    "name": "new",
    "model": {"family": "mlp"},
    "dataset": {"name": "digits"},
    "hyperparameters": {"l1": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True}},
    "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
    "budget": {"trials": 5},
}
FUNCTION: dict[str, Any] = {
    "name": "new",
    "model": {"family": "function"},
    "hyperparameters": {"x0": {"type": "float", "low": 0.0, "high": 1.0}},
    "objectives": [{"metric": "value"}],
    "budget": {"trials": 5},
}


def mlp(**changes: Any) -> dict[str, Any]:
    return MLP | changes


def searched(**hyperparameters: Any) -> dict[str, Any]:
    return MLP | {"hyperparameters": hyperparameters}


def function(**changes: Any) -> dict[str, Any]:
    return FUNCTION | changes


def coordinates(count: int, **others: Any) -> dict[str, Any]:
    axis = {"type": "float", "low": 0.0, "high": 1.0}
    return FUNCTION | {"hyperparameters": {f"x{i}": axis for i in range(count)} | others}


def flt(low: Any = 0.0, high: Any = 1.0, **more: Any) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high} | more


def whole(low: Any, high: Any, **more: Any) -> dict[str, Any]:
    return {"type": "int", "low": low, "high": high} | more


def among(*choices: Any, **more: Any) -> dict[str, Any]:
    return {"type": "categorical", "choices": list(choices)} | more
