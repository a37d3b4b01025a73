"""What one request may cost everybody: work grows with its size, codecs are ours, few of many errors are told."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.api.field_errors import MAX_PLACES, field_errors, shown
from app.domain.study import StudyDefinition
from app.store.engine import Database
from tests.integration.conftest import RunningService, function_study, serving
from tests.support.data_files import csv_table, form

MB = 2**20
FORM = "multipart/form-data; boundary=fettle-test-boundary"


@pytest.fixture(scope="module")
def service(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("costs")
    (folder / "fettle.db").write_bytes(migrated_sqlite_file.read_bytes())
    database = Database(f"sqlite:///{folder / 'fettle.db'}")
    with serving(database, folder) as running:
        yield running
    database.dispose()


def others_wait(service: RunningService, request: Callable[[], Any]) -> tuple[float, Any]:
    """For how long a simple call waits at most while `request` is served, in seconds, and its answer."""
    longest = 0.0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(request)
        while not answer.done():
            began = time.monotonic()
            assert service.client.get("/healthz").status_code == 200
            longest = max(longest, time.monotonic() - began)
        return longest, answer.result()


# -- codecs -----------------------------------------------------------------------------------------------------------

CODECS = [
    "punycode", "undefined", "idna", "utf-7", "utf-16", "latin-1", "rot13", "zlib_codec", "base64", "unicode_escape",
    "raw_unicode_escape", "mbcs", "nonsense", "", "utf-8-sig", "../utf-8", "u" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("charset", CODECS, ids=lambda charset: charset[:20])
@pytest.mark.parametrize("place", ["form", "quoted", "part", "field"])
def test_a_client_chooses_no_codec(service: RunningService, charset: str, place: str) -> None:
    """A form in another encoding than UTF-8 is refused; what its parts say of theirs changes nothing."""
    import httpx

    words = b"xn--" + b"a" * (MB - 100)
    body, _ = form(csv_table(), "t.csv", [("name", "coded"), ("target", "churned"), ("description", words.decode())])
    kind = FORM
    if place in {"form", "quoted"}:
        kind += f'; charset="{charset}"' if place == "quoted" else f"; charset={charset}"
    elif place == "part":
        body = body.replace(
            b'name="description"', f'name="description"\r\nContent-Type: a/b; charset={charset}'.encode()
        )
    else:
        body = body.replace(b'name="description"', f'name="description"; charset={charset}'.encode(), 1)
        first = f'--fettle-test-boundary\r\nContent-Disposition: form-data; name="_charset_"\r\n\r\n{charset}\r\n'
        body = first.encode() + body

    def upload() -> httpx.Response:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            return client.post("/v1/datasets", content=body, headers={"Content-Type": kind})

    longest, answer = others_wait(service, upload)
    assert answer.status_code in {400, 415, 422}, answer.text  # the description is too long, whatever its encoding
    if place in {"form", "quoted"}:
        assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert longest < 5


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8"])
def test_a_form_may_say_that_it_is_utf_8(service: RunningService, charset: str) -> None:
    body, _ = form(csv_table(), "t.csv", [("name", "told"), ("target", "churned"), ("description", "é…")])
    answer = service.client.post("/v1/datasets", content=body, headers={"Content-Type": f"{FORM}; charset={charset}"})
    assert answer.status_code in {200, 201}, answer.text
    assert answer.json()["description"] == "é…"


@pytest.mark.parametrize("charset", ["punycode", "utf-16", "undefined", "nonsense"])
def test_json_is_utf_8_whatever_it_is_said_to_be(service: RunningService, charset: str) -> None:
    kind = {"Content-Type": f"application/json; charset={charset}"}
    definition = json.dumps(function_study(name=charset, description="é"), ensure_ascii=False)
    answer = service.client.post("/v1/studies", content=definition.encode(), headers=kind)
    assert (answer.status_code, answer.json()["definition"]["description"]) == (201, "é")
    assert service.client.post("/v1/studies", content=definition.encode("utf-16"), headers=kind).status_code == 400


@pytest.mark.thorough
def test_headers_of_a_forms_parts_count_as_its_fields_do(service: RunningService) -> None:
    """Each takes milliseconds to read: ten thousand of them took a minute."""
    import httpx

    head = b'--b\r\nContent-Disposition: form-data; name="drop"; x="' + b";" * 4_000 + b'"\r\n\r\nx\r\n'

    def upload() -> httpx.Response:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            return client.post("/v1/datasets", content=head * 5_000 + b"--b--\r\n", headers=kind)

    longest, answer = others_wait(service, upload)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert longest < 5


# -- what is wrong with a body ----------------------------------------------------------------------------------------


def wrong(kind: str, count: int) -> dict[str, Any]:
    """A definition with so many things that are wrong."""
    names = [f"x{i}" for i in range(count)]
    search = {"type": "float", "low": 0.0, "high": 1.0}
    return function_study(
        **{
            "nulls": {"hyperparameters": dict.fromkeys(names)},
            "types": {"hyperparameters": {name: {"type": "other"} for name in names}},
            "searches": {"hyperparameters": {name: {"type": "float", "a": 1} for name in names}},
            "parents": {"hyperparameters": {"x0": search | {"when": dict.fromkeys(names)}}},
            "fields": dict.fromkeys(names),
            "labels": {"labels": dict.fromkeys(names)},
            "choices": {"hyperparameters": {"x0": {"type": "categorical", "choices": [[]] * count}}},
            "options": {"sampler": {"name": "tpe", "options": dict.fromkeys(names)}},
            "constraints": {"constraints": [None] * count},
        }[kind]
    )


WRONG = ["nulls", "types", "searches", "parents", "fields", "labels", "choices", "options", "constraints"]


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python `work` runs: a measure that doesn't depend on how busy the machine is."""
    count = 0

    def trace(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_told_of_a_body_costs_no_more_than_its_size(kind: str) -> None:
    def cost(count: int) -> int:
        body = wrong(kind, count)
        try:
            StudyDefinition.model_validate(body)
        except ValidationError as error:
            found = error.errors(include_url=False)
            return lines_run(lambda: field_errors(found, body, StudyDefinition))
        return 0

    small, large = cost(500), cost(5_000)
    assert large <= 11 * small + 10_000


@pytest.mark.parametrize("kind", WRONG)
def test_a_body_with_thousands_of_errors_is_answered_shortly_and_beside_others(
    service: RunningService, kind: str
) -> None:
    import httpx

    body = wrong(kind, 9_990)

    def check() -> httpx.Response:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            return client.post("/v1/studies:validate", json=body)

    longest, answer = others_wait(service, check)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_STUDY"), answer.text
    assert 1 <= len(answer.json()["errors"]) <= MAX_PLACES
    assert len(answer.content) < 100_000
    assert longest < 5


def test_where_more_is_wrong_than_is_told_the_problem_says_so(service: RunningService) -> None:
    for count, words in ((3, "(and 2 more)"), (5_000, f"(and at least {MAX_PLACES} more)")):
        answer = service.client.post("/v1/studies:validate", json=wrong("nulls", count)).json()
        assert words in answer["detail"]
        assert len(answer["errors"]) == min(count, MAX_PLACES)


def test_of_a_large_value_no_more_is_written_than_is_shown() -> None:
    huge = {"a": [["x" * 50] * 1_000] * 1_000}
    assert len(shown(huge)) < 110
    assert lines_run(lambda: shown(huge)) < 2_000
    assert shown({"a": [1, "b", None]}) == '{"a": [1, "b", null]}'
    assert shown("x" * 1_000) == '"' + "x" * 99 + "…"


def test_a_large_body_that_is_right_is_what_a_small_one_is(service: RunningService) -> None:
    """It is validated on a thread, and the endpoint is given the same."""
    search = {"type": "float", "low": 0.0, "high": 1.0}
    large = function_study(name="large", description="é" * 9_000, labels={"a": "b"})
    answer = service.client.post("/v1/studies", json=large, headers={"Idempotency-Key": "large"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["definition"]["description"] == "é" * 9_000
    again = service.client.post("/v1/studies", json=large, headers={"Idempotency-Key": "large"})
    assert (again.status_code, again.json()["id"]) == (201, answer.json()["id"])
    other = service.client.post("/v1/studies", json=large | {"name": "x"}, headers={"Idempotency-Key": "large"})
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    patched = service.client.patch(f"/v1/studies/{answer.json()['id']}", json={"description": "x" * 9_900})
    assert (patched.status_code, patched.json()["definition"]["labels"]) == (200, {"a": "b"}), patched.text
    refused = service.client.post("/v1/studies", json=large | {"hyperparameters": {"x0": search | {"when": 1}}})
    assert refused.json()["errors"][0]["loc"] == ["hyperparameters", "x0", "when"]


def test_the_documents_are_made_once(service: RunningService) -> None:
    first = service.client.get("/openapi.json")
    assert first.content == service.client.get("/openapi.json").content
    assert service.client.head("/openapi.json").headers["content-length"] == str(len(first.content))


def test_no_file_is_left_open_by_what_is_refused(service: RunningService) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("no /proc")
    body, headers = form(csv_table(), "t.csv", [("name", "x" * 300)])
    before = len(os.listdir(descriptors))  # noqa: PTH208
    for _ in range(30):
        assert service.client.post("/v1/datasets", content=body, headers=headers).status_code == 422
    assert len(os.listdir(descriptors)) < before + 15  # noqa: PTH208
