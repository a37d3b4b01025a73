"""Schemathesis' engine over our OpenAPI document: what it sends, what it must not find, and what it reached."""

from __future__ import annotations

import copy
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis import engine
from schemathesis.engine import events

from tests.fuzz.shaping import Lease, shaping
from tests.support import effort

_STUDY = {"path.study_id": "studies"}
OWN = {
    "POST /v1/studies/{study_id}/trials/{number}:cancel": _STUDY | {"path.number": "first"},
    "DELETE /v1/studies/{study_id}": _STUDY,
    **{f"POST /v1/studies/{{study_id}}:{verb}": _STUDY for verb in ("pause", "resume", "stop", "cancel")},
    "POST /v1/keys/{key_id}:rotate": {"path.key_id": "rotated"},
    "DELETE /v1/keys/{key_id}": {"path.key_id": "revoked"},
    "DELETE /v1/webhooks/{webhook_id}": {"path.webhook_id": "webhooks"},
    "DELETE /v1/datasets/{dataset_id}": {"path.dataset_id": "datasets"},
    "GET /v1/projects/{name}": {"path.name": "projects"},
    "PATCH /v1/projects/{name}": {"path.name": "projects"},
    "DELETE /v1/projects/{name}": {"path.name": "empty"},
}
"""Operations that end what they are sent to, or that mean something else by a parameter: its values, by their name."""
ELSEWHERE = (400, 404, 409, 412, 414, 429)
"""What may be wrong with a request whose parts are as they should be: when it is sent, to what, and how long it is."""
STRANGERS = (401, 403)
"""And who sends it."""
BY_VALUE = (
    "missing_required_header",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "ensure_resource_availability",
    "use_after_free",
)
"""What strangers are not told: whether a request would have been right."""
LASTING = ("GET /v1/keys/{key_id}", "DELETE /v1/keys/{key_id}", "POST /v1/keys/{key_id}:rotate")
"""What a deleted resource still answers to: a key that was revoked stays in the list."""
FOR_KEYS = "POST /v1/keys"
"""Refused by an open service: the first key is made where the database is."""
JUDGED = {
    "POST /v1/studies": "sections depend on one another: ranges, budgets, metrics of the family",
    "POST /v1/studies:validate": "as above",
    "PATCH /v1/studies/{study_id}": "what comes out of a patch is judged as a whole",
    "POST /v1/studies/{study_id}/trials": "hyperparameters are those of the study",
    "POST /v1/studies/{study_id}/trials:ask": "JSON Schema calls 2.0 an integer, we don't",
    "POST /v1/studies/{study_id}/trials/{number}:report": "as above",
    "POST /v1/studies/{study_id}/trials/{number}:tell": "values are those of the study's objectives",
    "POST /v1/datasets": "a file is more than bytes",
    "POST /v1/webhooks": "a URL leads somewhere, a secret is base64",
    "POST /v1/projects": "JSON Schema calls 2.0 an integer, we don't; an Idempotency-Key is of one body",
    "PATCH /v1/projects/{name}": "JSON Schema calls 2.0 an integer, we don't",
    "GET /v1/studies": "a label is key:value",
    "GET /v1/studies/{study_id}/trials": "several objectives have no order",
    "GET /v1/studies/{study_id}/importances": "a metric is one of the study's",
    "GET /v1/studies/{study_id}/plots/{kind}": "as above, and each kind has its own",
    "GET /v1/studies/{study_id}/events": "only a page has a limit; an event id is a number",
    "GET /v1/events": "only a page has a limit; an event id is one that was given",
}
"""Operations that may answer 422 to what its schema allows, and why; all others must accept it."""


@dataclass(frozen=True)
class Targets:
    """What there is to send requests to."""

    values: dict[str, list[str | int]]
    """Values that parameters may have, by place and name (`path.study_id`)."""
    owned: dict[str, list[str | int]]
    """Values of parameters of the operations in `OWN`."""
    leases: list[Lease]
    """Leases that may be told about."""


@dataclass
class Found:
    """What a campaign found: failures by kind, and the statuses of every operation."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    checked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The operations whose answers a check has judged, by the check's name."""

    @property
    def requests(self) -> int:
        return sum(count for statuses in self.statuses.values() for count in statuses.values())

    def never_succeeded(self) -> list[str]:
        return sorted(name for name, statuses in self.statuses.items() if not any(s < 300 for s in statuses))

    def take(self, event: Any) -> None:
        if isinstance(event, events.ScenarioFinished):
            self._take_scenario(event.recorder)
        elif isinstance(event, events.NonFatalError):
            self.errors.append(f"{event.label}: {event.value}")
        elif isinstance(event, events.FatalError):
            raise event.exception

    def _take_scenario(self, recorder: Any) -> None:
        for key, interaction in recorder.interactions.items():
            name = recorder.cases[key].value.operation.label
            if interaction.response is not None:
                self.statuses[name][interaction.response.status_code] += 1
        for key, checks in recorder.checks.items():
            name = recorder.cases[key].value.operation.label
            for check in checks:
                self.checked[check.name].add(name)
                if check.failure_info is not None:
                    answer = recorder.interactions[key].response
                    status = "no answer" if answer is None else f"{answer.status_code}: {answer.text[:300]}"
                    info = check.failure_info
                    told = f"{status}\n{info.failure.message[:1000]}\n{info.code_sample[:1500]}"
                    self.failures.setdefault((check.name, name), told)

    def report(self) -> str:
        """The failures in words, one of each check and operation."""
        return "\n\n".join(f"{check}: {name}\n{told}" for (check, name), told in sorted(self.failures.items()))


@dataclass(frozen=True)
class Sender:
    """Who sends the requests: what all of them carry, and to what kind of service."""

    headers: Mapping[str, str]
    key_id: str | None
    """The id of the key in the headers: never revoked, never rotated."""
    service_has_keys: bool

    @property
    def is_stranger(self) -> bool:
        return self.service_has_keys and self.key_id is None


def fuzzed(document: dict[str, Any], url: str, *, sender: Sender, targets: Targets, phases: Mapping[str, int]) -> Found:
    """What Schemathesis finds at `url`; `phases` are examples by phase."""
    unchecked = BY_VALUE if sender.is_stranger else ()
    judged = JUDGED if sender.service_has_keys else JUDGED | {FOR_KEYS: "not by requests"}
    configuration: dict[str, Any] = {
        "seed": 1 if effort.factor() == 1 else random.randrange(2**31),
        "base-url": url,
        "headers": dict(sender.headers),
        "continue-on-failure": True,
        "request-timeout": 30,
        "generation": {"no-shrink": effort.factor() == 1, "allow-x00": False},
        "phases": {name: _phase(name, phases) for name in ("examples", "coverage", "fuzzing", "stateful")},
        "dictionaries": {
            **{f"own-{name}": {"values": values} for name, values in targets.owned.items()},
            **{name.replace(".", "-"): {"values": values} for name, values in targets.values.items()},
        },
        "parameters": {name: {"dictionary": name.replace(".", "-"), "probability": 0.6} for name in targets.values},
        "operations": [
            *({"include-name": name, "checks": {"positive_data_acceptance": {"enabled": False}}} for name in judged),
            *({"include-name": name, "parameters": _owned(names)} for name, names in OWN.items()),
            *({"include-name": name, "checks": {"use_after_free": {"enabled": False}}} for name in LASTING),
        ],
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", *ELSEWHERE]},
            "negative_data_rejection": {"expected-statuses": [*ELSEWHERE, *STRANGERS, 405, 413, 415, 422]},
            **{name: {"enabled": False} for name in unchecked},
        },
    }
    schema = schemathesis.openapi.from_dict(
        _strict(document, sender), config=schemathesis.Config.from_dict(configuration)
    )
    found = Found()
    with shaping(targets.leases, sender.key_id):
        for event in engine.from_schema(schema).execute():
            found.take(event)
    return found


def _owned(names: Mapping[str, str]) -> dict[str, Any]:
    return {parameter: {"dictionary": f"own-{name}", "probability": 0.9} for parameter, name in names.items()}


def _phase(name: str, phases: Mapping[str, int]) -> dict[str, Any]:
    wanted: dict[str, Any] = {"enabled": name in phases}
    if name in phases and name != "coverage":
        wanted["generation"] = {"max-examples": phases[name] * effort.factor()}
    return wanted


def _strict(document: dict[str, Any], sender: Sender) -> dict[str, Any]:
    """The document without its answer to everything: whatever is answered must be named.

    An open service asks nobody for a key, which the document says in words alone.
    """
    strict = copy.deepcopy(document)
    for operations in strict["paths"].values():
        for operation in operations.values():
            del operation["responses"]["default"]
            if not sender.service_has_keys:
                operation["security"] = []
    return strict
