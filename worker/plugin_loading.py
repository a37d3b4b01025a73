"""The families that installed packages bring along, by entry points: their declarations, without TensorFlow.

What is wrong with a plugin is its own affair: it is told and not offered, and the worker goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from app.domain.families import Family
from app.domain.families.plugin import ENTRY_POINTS, FamilyPlugin, InvalidPlugin
from app.domain.registry import BUILT_IN, Families


@dataclass(frozen=True)
class Plugins:
    """The plugins that can be offered, by their families' names, and why others can't, by their entry points' names."""

    offered: dict[str, FamilyPlugin]
    broken: dict[str, str]

    @property
    def families(self) -> list[Family]:
        """The declarations of those that can be offered."""
        return [plugin.family() for plugin in self.offered.values()]

    def registry(self) -> Families:
        """The built-in families and these."""
        return BUILT_IN.and_also(self.families)


def installed() -> Plugins:
    """The plugins of this Python environment, each imported anew where it was not yet."""
    offered: dict[str, FamilyPlugin] = {}
    broken: dict[str, str] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: (p.name, p.value)):
        try:
            plugin = _loaded(point)
            if plugin.name in offered:
                raise InvalidPlugin(f"Expected names that differ. Received a second family {plugin.name!r}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a package does when it is imported
            broken[f"{point.name} = {point.value}"] = f"{type(error).__name__}: {error}"
        else:
            offered[plugin.name] = plugin
    return Plugins(offered, broken)


def _loaded(point: EntryPoint) -> FamilyPlugin:
    """The plugin of an entry point.

    Raises:
        InvalidPlugin: it is none, or declares what can't be trained.
        Exception: whatever its import raises.
    """
    plugin = point.load()
    if not isinstance(plugin, FamilyPlugin):
        raise InvalidPlugin(f"Expected a FamilyPlugin. Received: {type(plugin).__name__}")
    plugin.family()
    if plugin.name in BUILT_IN:
        raise InvalidPlugin(f"Expected a name that no built-in family has. Received: {plugin.name!r}")
    return plugin
