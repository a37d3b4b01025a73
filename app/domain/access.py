"""Who calls: the scopes of keys, and the caller that a request is served for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_PROJECT = "default"


class Scope(StrEnum):
    """What a key may do. None includes another but `admin`, which includes all."""

    READ = "read"
    SUBMIT = "submit"
    WORK = "work"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is served for: the project that they work in, and what they may do there.

    `key_id` is the public id of their key, None where the service is open; `name` is what the key is called.
    """

    project: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    name: str | None = None

    def may(self, scope: Scope) -> bool:
        """Whether they may do what asks for `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANYBODY = Caller(DEFAULT_PROJECT, frozenset(Scope))
"""The caller of an open service."""
