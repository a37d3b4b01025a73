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
    `all_projects` lets an admin make and change projects, and the keys of other projects than their own.
    """

    project: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    name: str | None = None
    all_projects: bool = False

    def may(self, scope: Scope) -> bool:
        """Whether they may do what asks for `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def manages_projects(self) -> bool:
        """Whether they may make and change projects."""
        return self.all_projects and Scope.ADMIN in self.scopes


ANYBODY = Caller(DEFAULT_PROJECT, frozenset(Scope), all_projects=True)
"""The caller of an open service."""

VISITOR = Caller(DEFAULT_PROJECT, frozenset())
"""The caller of what everybody may see: nobody asked who they are."""
