"""The code of plugins, which the trainer alone imports: builders and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from app.domain.families.plugin import FamilyPlugin
from worker.plugin_loading import Plugins
from worker.training.metrics import OwnMetric
from worker.training.network_registry import Networks, Trainable, built_in, in_blocks, in_keras


def networks_of(plugins: Plugins, wanted: Sequence[str]) -> tuple[Networks, dict[str, str]]:
    """The networks of the built-in families and of the `wanted` ones of plugins; and by name why others have none."""
    trainables, broken = built_in(), {}
    for name, plugin in plugins.offered.items():
        if name not in wanted:
            continue
        try:
            trainables[name] = _trainable(plugin)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a package does when it is imported
            broken[name] = f"{type(error).__name__}: {error}"
    return Networks(plugins.registry(), trainables), broken


def _trainable(plugin: FamilyPlugin) -> Trainable:
    metrics = tuple(
        OwnMetric(m.name, _found(m.per_sample), None if m.finish is None else _found(m.finish)) for m in plugin.metrics
    )
    if plugin.blocks is not None:
        return Trainable(in_blocks(_found(plugin.blocks)), metrics)
    builder = _found(str(plugin.builder))
    return Trainable(in_keras(lambda _: builder), metrics)


def _found(place: str) -> Callable[..., Any]:
    """What `module:function` names.

    Raises:
        TypeError: it can't be called.
        Exception: whatever the module's import raises.
    """
    module, _, name = place.partition(":")
    found = getattr(import_module(module), name)
    if not callable(found):
        raise TypeError(f"Expected a function at {place}. Received: {type(found).__name__}")
    function: Callable[..., Any] = found
    return function
