"""The families that there are: the built-in ones, and those that workers have advertised.

A registry is passed to whoever looks families up: what is known differs between an API process, a worker and its
trainer, and changes as workers come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from app.domain.families import FAMILIES, Family, Scalar
from app.domain.families.catalogue import with_layers
from app.domain.space import Categorical, Float, Int
from app.domain.study import ModelSpec

Values = Mapping[str, Float | Int | Categorical | Scalar]


class Families:
    """Families by name and version. Of several versions of a name the last one counts where none is asked for."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._versions: dict[str, dict[str, Family]] = {}
        for family in families:
            versions = self._versions.setdefault(family.name, {})
            versions.pop(family.version, None)
            versions[family.version] = family

    def __iter__(self) -> Iterator[Family]:
        """The version that counts of every family, in the order of names as they came."""
        return (list(versions.values())[-1] for versions in self._versions.values())

    def __contains__(self, name: object) -> bool:
        return name in self._versions

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return list(self._versions)

    def versions(self, name: str) -> list[str]:
        """The versions that are known of a family, the one that counts last."""
        return list(self._versions.get(name, ()))

    def get(self, name: str, version: str | None = None) -> Family | None:
        """The family of this name, and version where one is given; None where it isn't known."""
        versions = self._versions.get(name, {})
        if version is not None:
            return versions.get(version)
        return list(versions.values())[-1] if versions else None

    def of(self, model: ModelSpec, hyperparameters: Values | None = None) -> Family | None:
        """The family of a definition's `model`, with what its list of layers declares; None where it isn't known.

        `hyperparameters` are the definition's: a searched one that not every trial draws falls back to the first of its
        values.
        """
        family = self.get(model.family, model.version)
        if family is None or not family.from_layers:
            return family
        conditional = {n: p for n, p in (hyperparameters or {}).items() if isinstance(p, Float | Int | Categorical)}
        fallbacks = {n: first_value(p) for n, p in conditional.items() if p.when}
        return with_layers(model.layers or (), model.input, fallbacks)

    def and_also(self, families: Iterable[Family]) -> Families:
        """These families and others, which count where they have a name in common."""
        mine = [family for versions in self._versions.values() for family in versions.values()]
        return Families([*mine, *families])


BUILT_IN = Families(FAMILIES.values())
"""The built-in families."""


def first_value(parameter: Float | Int | Categorical) -> Scalar:
    """The lowest number, or the first choice, of a searched hyperparameter."""
    return parameter.choices[0] if isinstance(parameter, Categorical) else parameter.low
