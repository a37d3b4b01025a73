"""What is changed about generated requests, so that many of them get far: a valid request is no accident."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

from app.api.examples import DEFINITIONS
from app.domain.access import DEFAULT_PROJECT

CREATING = ("POST /v1/studies", "POST /v1/studies:validate")
HOOKING = "POST /v1/webhooks"
NOBODY = "http://127.0.0.1:9/"
"""Where webhooks lead: nobody listens there."""
CHANGING_PROJECT = "PATCH /v1/projects/{name}"
CHANGING_KEYS = ("POST /v1/keys/{key_id}:rotate", "DELETE /v1/keys/{key_id}")
UPLOADING = "POST /v1/datasets"
TABLE = b"a,b,label\n" + b"".join(b"%d,%d,%s\n" % (i, i % 7, b"yn"[i % 2 : i % 2 + 1]) for i in range(60))
STREAMS = ("GET /v1/studies/{study_id}/events", "GET /v1/events")
HOLDING = {f"POST /v1/studies/{{study_id}}/trials/{{number}}:{verb}": verb for verb in ("heartbeat", "report", "tell")}
SECTIONS = (
    "description",
    "labels",
    "training",
    "constraints",
    "sampler",
    "pruner",
    "budget",
    "execution",
    "warm_start",
)
TRUE = {"true", "1", "yes", "on", "t", "y"}

Lease = tuple[str, int, str]
"""A study's id, a trial's number, and the token of its lease."""


@contextmanager
def shaping(leases: Sequence[Lease], key_id: str | None) -> Iterator[None]:
    """While the block runs, streams end, definitions often become studies, and some requests hold `leases`.

    The key that all requests carry stays in force, and the project that it is of keeps its quotas.
    """
    numbers = itertools.count()

    def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
        name, number = case.operation.label, next(numbers)
        if name in STREAMS:
            _end(case)
        if name in CHANGING_KEYS and case.path_parameters.get("key_id") == key_id is not None:
            case.path_parameters = {"key_id": f"{key_id}-not"}
        if name == CHANGING_PROJECT and case.path_parameters.get("name") == DEFAULT_PROJECT:
            case.path_parameters = {"name": f"{DEFAULT_PROJECT}-not"}
        if name == HOOKING and isinstance(case.body, dict):
            _lead_nowhere(case)
        if not isinstance(case.body, dict) or not _is_valid(case):
            return
        chance = random.Random(f"{number} {case.body}")
        if name == UPLOADING and case.media_type == "multipart/form-data" and chance.random() < 0.7:
            case.body = case.body | {
                "name": f"brought-{number}",
                "file": TABLE.decode(),
                "format": "csv",
                "target": "label",
            }
        elif name in CREATING:
            case.body = _definition(case.body, number, chance)
        elif name in HOLDING:
            _hold(case, HOLDING[name], leases, chance)

    schemathesis.hook(before_call)
    try:
        yield
    finally:
        schemathesis.hooks.unregister(before_call)


def _is_valid(case: Any) -> bool:
    """Whether the request is meant to be valid: one that is not must stay what it is."""
    return case.meta is None or not (
        case.meta.generation.mode.is_negative or case.meta.is_negative_at(ParameterLocation.BODY)
    )


def _end(case: Any) -> None:
    """A stream would wait for events that never come."""
    query = dict(case.query or {})
    if str(query.get("follow", "true")).lower() in TRUE:
        case.query = query | {"follow": "false"}


def _lead_nowhere(case: Any) -> None:
    """A webhook that could be added leads to nobody; a valid one can be."""
    url = case.body.get("url")
    if _is_valid(case):
        case.body = {name: value for name, value in case.body.items() if name != "secret"} | {"url": NOBODY}
    elif isinstance(url, str) and "://" in url:
        case.body = case.body | {"url": NOBODY}


def _definition(generated: dict[str, Any], number: int, chance: random.Random) -> dict[str, Any]:
    """One of the documented definitions with up to two sections of a generated one.

    A definition generated as a whole is refused for one of its many parts.
    """
    example = DEFINITIONS[chance.choice(["network", "function", "external", "external"])]["value"]
    given = [name for name in SECTIONS if name in generated]
    taken = chance.sample(given, min(len(given), chance.randint(0, 2)))
    return example | {"name": f"{example['name']}-{number}"} | {name: generated[name] for name in taken}


def _hold(case: Any, verb: str, leases: Sequence[Lease], chance: random.Random) -> None:
    """Name a lease that was given, unless the request follows an `:ask`, and metrics of the objective."""
    followed = case.meta is None or case.meta.phase.name.value == "stateful"
    if not followed and chance.random() < 0.7:
        study_id, number, token = chance.choice(leases)
        case.path_parameters = {"study_id": study_id, "number": number}
        case.body = case.body | {"lease_token": token}
    measured = {"report": "metrics", "tell": "values"}.get(verb)
    if measured is not None and chance.random() < 0.7:
        case.body = case.body | {measured: {**case.body.get(measured, {}), "loss": chance.random()}}
