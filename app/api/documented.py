"""What clients can't see from the code of an endpoint: the ways it refuses, its headers, and where an answer leads.

The OpenAPI document is made of FastAPI's own and of this; `tests/fuzz` holds the service against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.api.examples import EXAMPLES
from app.api.gate import PROBES
from app.api.problems import PROBLEM_TYPE

PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
Operation = dict[str, Any]

REFUSALS = {
    "400": "Malformed: broken JSON, or a cursor or event id that the service never gave",
    "401": "No API key that is in force, where the service has keys",
    "403": "The key may not do this, or the page of another site asks for it",
    "404": "There is no such resource",
    "408": "The body did not arrive in time",
    "409": "The state, a name or a lease forbids it",
    "412": "Another revision than the one that `If-Match` names",
    "413": "The body is too large",
    "414": "The path and query are too long",
    "415": "A media type that is not read here",
    "421": "The request names a host that the service does not go by",
    "422": "Well formed, but it can't be so: `errors` says where",
    "429": "Too many calls, or open streams: try again after `Retry-After` seconds",
    "431": "The headers are too many, or too large",
    "503": "The service or its database is busy or away: try again after `Retry-After` seconds",
}
UNCOUNTED = ("/healthz", "/readyz")
"""Open to everybody, and as often as they like."""
UNNAMED = ("400", "408", "414", "431")
"""Refusals of what may not be a request yet: they have no id."""
CHANGING = ("post", "patch", "put", "delete")
NAMING = (("post", "/v1/keys"), ("post", "/v1/webhooks"))
"""Their bodies name a project and a study that may not be there."""

LOCATION = {"Location": {"description": "The path of what was created", "required": True, "schema": {"type": "string"}}}
ETAG = {
    "ETag": {
        "description": "The revision, for `If-Match`",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
    }
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 0}}}
AUTHENTICATE = {"WWW-Authenticate": {"description": "`Bearer`", "required": True, "schema": {"type": "string"}}}
DISPOSITION = {
    "Content-Disposition": {"description": "The file's name", "required": True, "schema": {"type": "string"}}
}
REQUEST_ID, POLICY, STANDING = "X-Request-ID", "RateLimit-Policy", "RateLimit"
COMMON = {
    REQUEST_ID: {
        "description": "What the log and the audit log call the request: the client's own `X-Request-ID`, or a new one",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    POLICY: {
        "description": "The budget that the call was counted in: its name, `q` calls in `w` seconds",
        "schema": {"type": "string", "pattern": '^"[a-z]+";q=[0-9]+;w=[0-9]+$'},
    },
    STANDING: {
        "description": "What is left of it: `r` calls, all of them again in `t` seconds",
        "schema": {"type": "string", "pattern": '^"[a-z]+";r=[0-9]+;t=[0-9]+$'},
    },
}
"""Headers that most answers have, by reference; the first one is required where there is a request to name."""
STUDY, TRIAL = "/v1/studies/{study_id}", "/v1/studies/{study_id}/trials/{number}"
FILES = (f"{TRIAL}/artifacts/{{name}}", f"{STUDY}/best/recipe.py", f"{STUDY}/export", f"{STUDY}/report")
KEY, PROJECT, WEBHOOK = "/v1/keys/{key_id}", "/v1/projects/{name}", "/v1/webhooks/{webhook_id}"


def complete(document: dict[str, Any]) -> None:
    """Write refusals, headers, examples and links into an OpenAPI document."""
    paths: dict[str, dict[str, Operation]] = document.get("paths", {})
    named = {name: header | ({"required": True} if name == REQUEST_ID else {}) for name, header in COMMON.items()}
    document.setdefault("components", {})["headers"] = named
    for path, operations in paths.items():
        for method, operation in operations.items():
            _refusals(method, path, operation)
            _headers(method, path, operation)
            operation["responses"]["default"] = _problem("Any other problem (RFC 9457)")
    for name, examples in EXAMPLES.items():
        shown = _operation(paths, name)
        if shown is not None:
            shown["requestBody"]["content"]["application/json"]["examples"] = examples
    for source, status, target, found in LINKS:
        answering, leading = _operation(paths, source), _operation(paths, target)
        if answering is not None and leading is not None:
            links = answering["responses"][status].setdefault("links", {})
            links[leading["operationId"]] = {"operationId": leading["operationId"], **found}


def _refusals(method: str, path: str, operation: Operation) -> None:
    responses = operation["responses"]
    for status in _refused_with(method, path, operation):
        responses[status] = _problem(REFUSALS[status])
        if status in {"429", "503"}:
            responses[status]["headers"] = {**RETRY_AFTER}
        if status == "401":
            responses[status]["headers"] = {**AUTHENTICATE}


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM_TYPE: {"schema": PROBLEM_REF}}}


def _refused_with(method: str, path: str, operation: Operation) -> Iterator[str]:
    parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
    if method in CHANGING or parameters & {"cursor", "after"}:
        yield "400"
    if "{" in path or (method, path) in NAMING:
        yield "404"
    if method in CHANGING or path.endswith("/recipe.py"):
        yield "409"
    if "If-Match" in parameters:
        yield "412"
    if method in CHANGING:
        yield from ("408", "413", "415")
    if path not in UNCOUNTED:
        yield from ("401", "403", "421", "429")
    yield from ("414", "422", "431", "503")


def _headers(method: str, path: str, operation: Operation) -> None:
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        if status not in UNNAMED:
            headers |= _common(REQUEST_ID)
        if path not in PROBES and status[0] in "24" and status != "401" and status not in UNNAMED:
            headers |= _common(POLICY, STANDING)
        if not status.startswith("2"):
            continue
        if method == "post" and (status == "201" or path == "/v1/datasets"):
            headers |= LOCATION
        if _schema_of(response) == "#/components/schemas/Study":
            headers |= ETAG
        if path in FILES:
            headers |= DISPOSITION


def _common(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schema_of(response: dict[str, Any]) -> str | None:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    reference: str | None = schema.get("$ref")
    return reference


def _operation(paths: dict[str, dict[str, Operation]], name: str) -> Operation | None:
    method, path = name.split(" ")
    return paths.get(path, {}).get(method.lower())


def _from(**parameters: str) -> dict[str, Any]:
    """A link's parameters: where in the answer (or the request's path) their values are."""
    return {"parameters": {name: f"$response.body#/{place}" for name, place in parameters.items()}}


_OF_STUDY = (
    "",
    "/trials",
    "/best",
    "/best/recipe.py",
    "/events",
    "/export",
    "/importances",
    "/plots/{kind}",
    "/report",
)
_OF_TRIAL = ("", "/metrics", "/logs", "/artifacts", "/lineage")
_HELD = {
    "parameters": {"study_id": "$request.path.study_id", "number": "$response.body#/items/0/number"},
    "requestBody": {"lease_token": "$response.body#/items/0/lease/token"},
    "description": "As the holder of the lease.",
}
LINKS: list[tuple[str, str, str, dict[str, Any]]] = [
    *(("POST /v1/studies", "201", f"GET {STUDY}{rest}", _from(study_id="id")) for rest in _OF_STUDY),
    *(
        ("POST /v1/studies", "201", f"POST {STUDY}:{verb}", _from(study_id="id"))
        for verb in ("pause", "resume", "stop", "cancel")
    ),
    *(("POST /v1/studies", "201", f"{verb} {STUDY}", _from(study_id="id")) for verb in ("PATCH", "DELETE")),
    ("POST /v1/studies", "201", f"POST {STUDY}/trials", _from(study_id="id")),
    ("POST /v1/studies", "201", f"POST {STUDY}/trials:ask", _from(study_id="id")),
    ("GET /v1/studies", "200", f"GET {STUDY}", _from(study_id="items/0/id")),
    (f"POST {STUDY}:cancel", "200", f"DELETE {STUDY}", _from(study_id="id")),
    (f"POST {STUDY}:pause", "200", f"POST {STUDY}:resume", _from(study_id="id")),
    *(
        (f"POST {STUDY}/trials", "201", f"GET {TRIAL}{rest}", _from(study_id="study_id", number="number"))
        for rest in _OF_TRIAL
    ),
    (f"POST {STUDY}/trials", "201", f"POST {TRIAL}:cancel", _from(study_id="study_id", number="number")),
    *((f"POST {STUDY}/trials:ask", "200", f"POST {TRIAL}:{verb}", _HELD) for verb in ("heartbeat", "report", "tell")),
    (f"POST {TRIAL}:tell", "200", f"GET {TRIAL}", _from(study_id="study_id", number="number")),
    (f"GET {STUDY}/trials", "200", f"GET {TRIAL}", _from(study_id="items/0/study_id", number="items/0/number")),
    (
        f"GET {TRIAL}/artifacts",
        "200",
        f"GET {TRIAL}/artifacts/{{name}}",
        {
            "parameters": {
                "study_id": "$request.path.study_id",
                "number": "$request.path.number",
                "name": "$response.body#/items/0/name",
            }
        },
    ),
    ("POST /v1/datasets", "201", "GET /v1/datasets/{dataset_id}", _from(dataset_id="id")),
    ("POST /v1/datasets", "201", "DELETE /v1/datasets/{dataset_id}", _from(dataset_id="id")),
    *(
        ("POST /v1/keys", "201", call, _from(key_id="id"))
        for call in (f"GET {KEY}", f"POST {KEY}:rotate", f"DELETE {KEY}")
    ),
    (f"POST {KEY}:rotate", "200", f"DELETE {KEY}", _from(key_id="id")),
    *(("POST /v1/projects", "201", f"{verb} {PROJECT}", _from(name="name")) for verb in ("GET", "PATCH", "DELETE")),
    *(("POST /v1/webhooks", "201", f"{verb} {WEBHOOK}", _from(webhook_id="id")) for verb in ("GET", "DELETE")),
    *(
        ("POST /v1/webhooks", "201", f"POST {WEBHOOK}:{verb}", _from(webhook_id="id"))
        for verb in ("pause", "resume", "test")
    ),
    ("GET /v1/workers", "200", "POST /v1/workers/{worker_id}:drain", _from(worker_id="items/0/id")),
]
"""An operation, the status of its answer, the operation that this leads to, and the link between them."""
