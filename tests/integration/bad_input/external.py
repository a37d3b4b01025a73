"""What outside programs may send wrongly."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase, RequestCase
from tests.integration.bad_input.studies import flt

EXTERNAL: dict[str, Any] = {
    "name": "new",
    "model": {"family": "external"},
    "hyperparameters": {"x": flt()},
    "objectives": [{"metric": "loss"}],
    "budget": {"trials": 5},
}


def external(**changes: Any) -> dict[str, Any]:
    return EXTERNAL | changes


DEFINITIONS: list[DefinitionCase] = [
    ("external: a data set", external(dataset={"name": "digits"}), ["dataset"]),
    ("external: a name with a space", external(hyperparameters={"a b": 1}), ["hyperparameters", "a b"]),
    ("external: a long text", external(hyperparameters={"a": "x" * 300}), ["hyperparameters", "a"]),
    ("external: low above high", external(hyperparameters={"x": flt(2.0, 1.0)}), ["hyperparameters", "x", "low"]),
    ("external: no metric", external(objectives=[{"metric": "a b"}]), ["objectives", 0, "metric"]),
]

ASK = "/v1/studies/{outside}/trials:ask"
TRIAL = "/v1/studies/{outside}/trials/0"
TOKEN = {"lease_token": "0" * 32}
REPORT = {**TOKEN, "epoch": 0, "metrics": {"loss": 1.0}}


def refused(what: str, path: str, body: Any, loc: list[Any]) -> RequestCase:
    return (what, "POST", path, body, {}, 422, "INVALID_REQUEST", loc)


REQUESTS: list[RequestCase] = [
    ("ask of a trained study", "POST", "/v1/studies/{id}/trials:ask", {}, {}, 409, "STATE_CONFLICT", None),
    ("ask of nothing", "POST", "/v1/studies/st_none/trials:ask", {}, {}, 404, "STUDY_NOT_FOUND", None),
    refused("ask for none", ASK, {"count": 0}, ["count"]),
    refused("ask for too many", ASK, {"count": 101}, ["count"]),
    refused("ask with a word", ASK, {"count": "all"}, ["count"]),
    refused("ask for no time", ASK, {"lease_seconds": 0.5}, ["lease_seconds"]),
    refused("ask for ever", ASK, {"lease_seconds": 1e6}, ["lease_seconds"]),
    refused("ask without a name", ASK, {"worker": ""}, ["worker"]),
    refused("ask for more", ASK, {"device": "gpu"}, ["device"]),
    ("ask in vain", "POST", ASK, [], {}, 422, "INVALID_REQUEST", None),
    refused("heartbeat without token", f"{TRIAL}:heartbeat", {}, ["lease_token"]),
    ("heartbeat of a stranger", "POST", f"{TRIAL}:heartbeat", TOKEN, {}, 409, "LEASE_LOST", None),
    ("report of a stranger", "POST", f"{TRIAL}:report", REPORT, {}, 409, "LEASE_LOST", None),
    ("tell of a stranger", "POST", f"{TRIAL}:tell", {**TOKEN, "state": "FAIL"}, {}, 409, "LEASE_LOST", None),
    refused("report of no epoch", f"{TRIAL}:report", {**TOKEN, "metrics": {"loss": 1.0}}, ["epoch"]),
    refused("report of epoch -1", f"{TRIAL}:report", {**REPORT, "epoch": -1}, ["epoch"]),
    refused("report of half an epoch", f"{TRIAL}:report", {**REPORT, "epoch": 0.5}, ["epoch"]),
    refused("report of nothing", f"{TRIAL}:report", {**REPORT, "metrics": {}}, ["metrics"]),
    refused("report of a word", f"{TRIAL}:report", {**REPORT, "metrics": {"loss": "low"}}, ["metrics", "loss"]),
    refused("report of null", f"{TRIAL}:report", {**REPORT, "metrics": {"loss": None}}, ["metrics", "loss"]),
    refused("tell of an unknown state", f"{TRIAL}:tell", {**TOKEN, "state": "DONE"}, ["state"]),
    refused("tell of a waiting state", f"{TRIAL}:tell", {**TOKEN, "state": "WAITING"}, ["state"]),
    refused("tell of no state", f"{TRIAL}:tell", TOKEN, ["state"]),
    refused("tell of a list", f"{TRIAL}:tell", {**TOKEN, "state": "COMPLETE", "values": [1.0]}, ["values"]),
    refused("an error of a success", f"{TRIAL}:tell", {**TOKEN, "state": "COMPLETE", "error": {}}, ["error"]),
]
