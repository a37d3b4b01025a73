"""Whatever is sent, in whatever order, is answered as the OpenAPI document says, and never by a failure of ours."""

from __future__ import annotations

import pytest

from tests import effort
from tests.fuzz.campaign import Found, fuzzed
from tests.fuzz.conftest import Site


def search(site: Site, **phases: int) -> Found:
    """Fuzz the service; every answer was one that the document has for the request."""
    document = site.service.client.get("/openapi.json").json()
    found = fuzzed(document, site.service.url, headers=site.headers, targets=site.targets, phases=phases)
    print(f"{found.requests} requests", *sorted((n, dict(s)) for n, s in found.statuses.items()), sep="\n")
    assert not found.errors, found.errors
    assert not found.failures, found.report()
    return found


@pytest.mark.slow
def test_requests_are_answered_as_documented_and_reach_every_operation(site: Site) -> None:
    found = search(site, examples=1, fuzzing=6, stateful=20)
    document = site.service.client.get("/openapi.json").json()
    operations = {f"{m.upper()} {p}" for p, methods in document["paths"].items() for m in methods}
    assert set(found.statuses) == operations
    assert found.never_succeeded() == []


@pytest.mark.slow
def test_edge_cases_of_every_parameter_are_answered_as_documented(site: Site) -> None:
    if site.service.database.url.get_backend_name() == "postgresql" and effort.factor() == 1:
        pytest.skip("What a request may be is judged before the database is asked: a long run tries it on both.")
    search(site, coverage=1)
