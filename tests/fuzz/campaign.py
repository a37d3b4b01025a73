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

from tests import effort
from tests.fuzz.shaping import Lease, shaping

CANCELLING = "POST /v1/studies/{study_id}/trials/{number}:cancel"
ENDING = (
    CANCELLING,
    "DELETE /v1/studies/{study_id}",
    *(f"POST /v1/studies/{{study_id}}:{verb}" for verb in ("pause", "resume", "stop", "cancel")),
)
ELSEWHERE = (400, 401, 403, 404, 409, 412, 429)
"""What may be wrong with a request whose parts are as they should be: who sends it, when, and to what."""
JUDGED = {
    "POST /v1/studies": "sections depend on one another: ranges, budgets, metrics of the family",
    "POST /v1/studies:validate": "as above",
    "PATCH /v1/studies/{study_id}": "what comes out of a patch is judged as a whole",
    "POST /v1/studies/{study_id}/trials": "hyperparameters are those of the study",
    "POST /v1/studies/{study_id}/trials:ask": "JSON Schema calls 2.0 an integer, we don't",
    "POST /v1/studies/{study_id}/trials/{number}:report": "as above",
    "POST /v1/studies/{study_id}/trials/{number}:tell": "values are those of the study's objectives",
    "POST /v1/datasets": "a file is more than bytes",
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
    disposable: list[str | int]
    """Ids of studies that may be ended and deleted; each has a trial that waits."""
    leases: list[Lease]
    """Leases that may be told about."""


@dataclass
class Found:
    """What a campaign found: failures by kind, and the statuses of every operation."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

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
                if check.failure_info is not None:
                    told = f"{check.failure_info.failure.message[:1000]}\n{check.failure_info.code_sample[:1500]}"
                    self.failures.setdefault((check.name, name), told)

    def report(self) -> str:
        """The failures in words, one of each check and operation."""
        return "\n\n".join(f"{check}: {name}\n{told}" for (check, name), told in sorted(self.failures.items()))


def fuzzed(
    document: dict[str, Any],
    url: str,
    *,
    headers: Mapping[str, str],
    targets: Targets,
    phases: Mapping[str, int],
) -> Found:
    """What Schemathesis finds at `url`; `phases` are examples by phase."""
    configuration: dict[str, Any] = {
        "seed": 1 if effort.factor() == 1 else random.randrange(2**31),
        "base-url": url,
        "headers": dict(headers),
        "continue-on-failure": True,
        "request-timeout": 30,
        "generation": {"no-shrink": effort.factor() == 1},
        "phases": {name: _phase(name, phases) for name in ("examples", "coverage", "fuzzing", "stateful")},
        "dictionaries": {
            "disposable": {"values": targets.disposable},
            "first": {"values": [0]},
            **{name.replace(".", "-"): {"values": values} for name, values in targets.values.items()},
        },
        "parameters": {name: {"dictionary": name.replace(".", "-"), "probability": 0.6} for name in targets.values},
        "operations": [
            *({"include-name": name, "checks": {"positive_data_acceptance": {"enabled": False}}} for name in JUDGED),
            *({"include-name": name, "parameters": _disposable(name)} for name in ENDING),
        ],
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", *ELSEWHERE]},
            "negative_data_rejection": {"expected-statuses": [*ELSEWHERE, 405, 413, 415, 422]},
        },
    }
    schema = schemathesis.openapi.from_dict(_strict(document), config=schemathesis.Config.from_dict(configuration))
    found = Found()
    with shaping(targets.leases):
        for event in engine.from_schema(schema).execute():
            found.take(event)
    return found


def _disposable(name: str) -> dict[str, Any]:
    """The parameters of an operation that ends a study or its first trial."""
    study = {"path.study_id": {"dictionary": "disposable", "probability": 0.9}}
    return study | ({"path.number": {"dictionary": "first", "probability": 0.9}} if name == CANCELLING else {})


def _phase(name: str, phases: Mapping[str, int]) -> dict[str, Any]:
    wanted: dict[str, Any] = {"enabled": name in phases}
    if name in phases and name != "coverage":
        wanted["generation"] = {"max-examples": phases[name] * effort.factor()}
    return wanted


def _strict(document: dict[str, Any]) -> dict[str, Any]:
    """The document without its answer to everything: whatever is answered must be named."""
    strict = copy.deepcopy(document)
    for operations in strict["paths"].values():
        for operation in operations.values():
            del operation["responses"]["default"]
    return strict
