"""Names that no file, no id and no host can have, and keys where an id belongs: refused in words, told to nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.domain.access import Scope
from app.domain.keys import masked, new_key
from app.store.engine import Database
from app.store.tables import AuditEntry, IdempotencyKey
from tests.hostile.wires import key_on
from tests.integration.access import make_key
from tests.integration.conftest import RunningService, function_study, serving
from tests.support.data_files import csv_table
from tests.support.services import service_on


@pytest.fixture(scope="module")
def service(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("names")
    (folder / "fettle.db").write_bytes(migrated_sqlite_file.read_bytes())
    database = Database(f"sqlite:///{folder / 'fettle.db'}")
    roots = folder / "roots"
    roots.mkdir()
    with serving(database, folder, dataset_roots=f"file://{roots},memory://bucket") as running:
        yield running
    database.dispose()


NAMES = [
    "a" * 300, "a" * 300 + ".csv", "a/" * 900 + "b.csv", "%00.csv", "%ff%fe.csv", "%F0%9F%98%80" * 60 + ".csv",
    "~.csv", "[::1", "a%2f..%2f..%2fetc%2fpasswd", "C:%5ca.csv", "con.csv", ".", "..", "", "%20", "a.csv/b.csv",
    "%E2%80%AE.csv", "proc:self.csv", "|a.csv", "*.csv", "{a,b}.csv", "a.csv;b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20])
def test_a_name_that_no_file_can_have_is_a_422(service: RunningService, name: str) -> None:
    roots = service.settings.data_dir / "roots"
    (roots / "a.csv").write_bytes(csv_table())
    for uri in (f"file://{roots}/{name}", f"file:///{name}", f"file://{name}", f"memory://bucket/{name}"):
        answer = service.client.post(
            "/v1/datasets", json={"name": "named", "uri": uri, "target": "churned", "format": "csv"}
        )
        assert answer.status_code in {400, 422}, (uri, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("part", ["a" * 300, "%20" * 100, "%F0%9F%98%80" * 100, "a" * 3_000])
def test_long_names_in_paths_and_queries_are_no_errors_of_the_service(service: RunningService, part: str) -> None:
    study = service.create(name=f"of-{abs(hash(part))}")["id"]
    for path in (
        f"/v1/studies/{part}", f"/v1/studies/{study}/trials/0/artifacts/{part}", f"/v1/datasets/{part}",
        f"/v1/webhooks/{part}", f"/v1/studies/{study}/plots/{part}", f"/v1/studies/{study}/{part}", f"/{part}",
        f"/v1/studies?q={part}", f"/v1/studies?cursor={part}", f"/v1/studies?label={part}", f"/v1/events?after={part}",
        f"/v1/studies/{study}/plots/history?metric={part}", f"/v1/studies/{study}/importances?metric={part}",
        f"/v1/studies/{study}/export?format={part}", f"/v1/studies/{study}/trials?sort={part}",
        f"/v1/audit?action={part}",
    ):  # fmt: skip
        answer = service.client.get(path, timeout=120)  # the first plot imports libraries
        assert answer.status_code < 500, (path[:100], answer.text)
    for path in (f"/v1/workers/{part}:drain", f"/v1/studies/{part}:pause", f"/v1/keys/{part}:rotate"):
        assert service.client.post(path).status_code < 500


@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "http://a]b", "[", "http://", "null", "", "http://a:b:c", "://", "x" * 20_000]
)
def test_an_origin_that_is_none_is_another_sites(service: RunningService, origin: str) -> None:
    answer = service.client.post("/v1/studies", json={}, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "CROSS_ORIGIN")


@pytest.mark.parametrize("value", [",", ";", '"', "["])
@pytest.mark.parametrize(
    "header",
    ["Accept", "If-Match", "Authorization", "Idempotency-Key", "Content-Type", "X-Forwarded-For", "Cookie", "Origin",
     "Last-Event-ID", "Range", "X-Request-ID", "Sec-Fetch-Site", "Content-Encoding", "Connection", "Expect"],
)  # fmt: skip
def test_a_long_header_of_anything_is_no_error_of_the_service(service: RunningService, header: str, value: str) -> None:
    text = (value * 30_000)[:30_000].encode("latin-1")
    json_body = {"headers": {"Content-Type": "application/json", header: text}, "content": b"{}"}
    form = (
        {"Content-Type": b"multipart/form-data; boundary=b; x=" + text} if header == "Content-Type" else {header: text}
    )
    for method, path, request in (
        ("GET", "/v1/events?follow=false", {"headers": {header: text}}),
        ("GET", "/v1/events?limit=1", {"headers": {"Accept": "application/json", header: text}}),
        ("POST", "/v1/studies", json_body),
        ("PATCH", "/v1/studies/nothing", json_body),
        ("POST", "/v1/datasets", {"headers": form, "content": b"--b--\r\n"}),
    ):
        with httpx.stream(method, service.url + path, timeout=20, **request) as answer:
            assert answer.status_code < 500, (method, path)


# -- keys where an id belongs -----------------------------------------------------------------------------------------


def secret_of(key: str) -> str:
    return key.rpartition("_")[2]


def test_a_keys_secret_is_masked_wherever_it_stands() -> None:
    key = new_key().text
    secret, public = secret_of(key), key.rpartition("_")[0] + "_"
    for text in (key, f"a {key}, b", key * 2, f"x{key}", key.upper(), key.lower(), key.replace("_", "%5F"), key[:40]):
        shown = masked(text)
        assert secret[:8].lower() not in shown.lower(), text
        assert "…" in shown
    assert masked(f"of {key}.") == f"of {public}…."
    for text in ("fettle_", public, f"{public}…", "fettle_short_abc", "study fettle_x"):
        assert masked(text) == text, "how a key begins is no secret"


def test_a_key_in_the_place_of_an_id_is_told_nowhere(sqlite_database: Database, tmp_path: Path) -> None:
    """Not in problems, headers, logs, nor the audit log; whole, in part, quoted, or as a name."""
    known = key_on(sqlite_database, tmp_path)
    key = new_key().text
    secret = secret_of(key)
    with service_on(sqlite_database, tmp_path, log_format="json", log_level="debug") as service:
        with service.client() as client:
            client.headers.update(known)
            study = client.post("/v1/studies", json=function_study()).json()["id"]
            ended = client.post(f"/v1/studies/{study}:cancel")
            assert ended.status_code == 200
            answers = [
                *(client.get(path) for path in (
                    f"/v1/studies/{key}", f"/v1/studies/{key}/trials", f"/v1/studies/{key}/events", f"/{key}",
                    f"/v1/studies/{study}/trials/0/artifacts/{key}", f"/v1/studies/{study}/plots/{key}",
                    f"/v1/datasets/{key}", f"/v1/webhooks/{key}", f"/v1/studies?state={key}", f"/v1/studies?{key}=1",
                    f"/v1/studies?label={key}", f"/v1/studies?cursor={key}", f"/v1/events?after={key}",
                    f"/v1/studies/{key.replace('_', '%255F')}", f"/v1/studies/{'x' * 60}{key}",
                    f"/v1/studies/{study}/export?format={key}",
                )),
                *(client.post(path) for path in (
                    f"/v1/workers/{key}:drain", f"/v1/studies/{key}:pause", f"/v1/keys/{key}:rotate", f"/v1/{key}",
                )),
                *(client.delete(path) for path in (
                    f"/v1/studies/{key}", f"/v1/keys/{key}", f"/v1/webhooks/{key}", f"/v1/datasets/{key}",
                )),
                client.request(key[:20], "/v1/studies"),
                client.get("/v1/studies", headers={"X-Request-ID": key}),
                client.get("/v1/studies", headers={"Host": key}),
                client.get("/v1/studies", headers={"Authorization": f"Bearer {key}"}),
                client.get(f"/v1/studies/{study}/events", headers={"Last-Event-ID": key}),
                client.get(f"/v1/studies/{study}/events", headers={"Accept": key}),
                client.patch(f"/v1/studies/{study}", json={"description": "x"}, headers={"If-Match": key}),
                client.post("/v1/studies", json=function_study(**{key: 1})),
                client.post("/v1/studies", json=function_study(sampler={"name": key})),
                client.post("/v1/studies", json=function_study(name=[key])),
                client.post("/v1/studies", json=function_study(hyperparameters={"x0": {"type": key}})),
                client.post("/v1/studies", json=function_study(dataset={"name": key})),
                client.post("/v1/studies", json=function_study(warm_start={"studies": [key]})),
                client.post("/v1/studies", content=key.encode(), headers={"Content-Type": key}),
                client.post("/v1/datasets", json={"name": "new", "uri": key}),
                client.post("/v1/webhooks", json={"url": f"https://{key}@example.com/{key}"}),
            ]  # fmt: skip
            for answer in answers:
                assert answer.status_code < 500, answer.text
                heard = answer.text + json.dumps(dict(answer.headers))
                assert secret[:6].lower() not in heard.lower(), (answer.request.url, heard)
            assert sum(answer.status_code >= 400 for answer in answers) > 30
            named = client.post("/v1/keys", json={"name": key, "scopes": ["read"]})
            client.delete(f"/v1/studies/{study}")
            noted = client.get("/v1/audit?limit=1000").text
        log = service.log()
    assert named.status_code in {201, 422}
    assert "study.delete" in noted
    assert secret[:6].lower() not in noted.lower()
    assert secret[:6].lower() not in log.lower()


def test_a_key_is_no_idempotency_key_and_gets_into_no_database(sqlite_database: Database, tmp_path: Path) -> None:
    """In full, in part, or within another text: what identifies a request is kept for a day, and in backups."""
    with serving(sqlite_database, tmp_path) as service:
        key = make_key(service, "admin", list(Scope))
        secret = secret_of(key.text)
        for sent in (key.text, f"retry-of-{key.text}", key.text[:40]):
            answer = service.client.post(
                "/v1/studies", json=function_study(), headers={**key.headers, "Idempotency-Key": sent}
            )
            assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST"), sent
            assert answer.json()["errors"][0]["loc"] == ["header", "Idempotency-Key"]
            assert secret[:6] not in answer.text
        own = {**key.headers, "Idempotency-Key": "fettle_retry_1"}
        assert service.client.post("/v1/studies", json=function_study(), headers=own).status_code == 201
        with sqlite_database.read() as session:
            kept = session.scalars(select(IdempotencyKey.key)).all()
    assert "fettle_retry_1" in kept
    assert not [text for text in kept if secret[:6] in text]


def test_what_is_noted_of_a_change_has_no_secret_in_it(sqlite_database: Database, tmp_path: Path) -> None:
    """Also where somebody gave a key, or a study, the text of one for its name."""
    with serving(sqlite_database, tmp_path) as service:
        key = make_key(service, "admin", list(Scope))
        headers: dict[str, Any] = {**key.headers, "X-Request-ID": key.text}
        named = service.client.post("/v1/keys", json={"name": key.text, "scopes": ["submit"]}, headers=headers)
        assert named.status_code == 201, named.text
        by_it = {"Authorization": f"Bearer {named.json()['key']}"}
        made = service.client.post("/v1/studies", json=function_study(name=key.text), headers=by_it)
        assert made.status_code == 201, made.text
        study = made.json()["id"]
        assert service.client.post(f"/v1/studies/{study}:cancel", headers=by_it).status_code == 200
        assert service.client.delete(f"/v1/studies/{study}", headers=headers).status_code == 204
        with sqlite_database.read() as session:
            entries = session.scalars(select(AuditEntry)).all()
            told = [f"{e.subject} {e.actor} {e.request_id} {e.details}" for e in entries]
    assert len(told) >= 3
    assert not [text for text in told if secret_of(key.text)[:6] in text]
