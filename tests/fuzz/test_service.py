"""Whatever is sent, in whatever order, is answered as the OpenAPI document says, and never by a failure of ours."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import FOR_KEYS, Found, Sender, fuzzed
from tests.fuzz.conftest import Site
from tests.support import effort

OF_KEYS = ("DELETE /v1/keys/{key_id}", "GET /v1/keys/{key_id}", FOR_KEYS, "POST /v1/keys/{key_id}:rotate")
"""What there is nothing for in an open service: it has no keys, and makes none."""
TOO_LONG = {414, 431}
"""Answered before there is a request that somebody could have sent."""


def search(site: Site, sender: Sender, **phases: int) -> Found:
    """Fuzz the service; every answer was one that the document has for the request."""
    document = site.service.client.get("/openapi.json").json()
    found = fuzzed(document, site.service.url, sender=sender, targets=site.targets, phases=phases)
    print(f"{found.requests} requests", *sorted((n, dict(s)) for n, s in found.statuses.items()), sep="\n")
    assert not found.errors, found.errors
    assert not found.failures, found.report()
    return found


@pytest.mark.slow
def test_requests_are_answered_as_documented_and_reach_every_operation(site: Site) -> None:
    found = search(site, site.sender, examples=1, fuzzing=4, stateful=14)
    secured, public = operations(site)
    assert set(found.statuses) == secured | public
    if site.sender.service_has_keys:
        assert found.never_succeeded() == []
        assert found.checked["ignored_auth"] >= secured
    else:
        assert found.never_succeeded() == sorted(OF_KEYS)
        assert set(found.statuses[FOR_KEYS]) >= {403}


@pytest.mark.slow
def test_edge_cases_of_every_parameter_are_answered_as_documented(judging_site: Site) -> None:
    search(judging_site, judging_site.sender, coverage=1)


@pytest.mark.slow
@pytest.mark.smoke
def test_strangers_are_told_nothing_whatever_they_send(keyed_site: Site) -> None:
    changes = keyed_site.service.client.get("/v1/audit", params={"limit": 1}).json()
    stranger = Sender({}, None, service_has_keys=True)
    edges = {} if effort.factor() == 1 else {"coverage": 1}
    found = search(keyed_site, stranger, examples=1, fuzzing=4, **edges)
    secured, public = operations(keyed_site)
    assert set(found.statuses) == secured | public
    told = {name: set(found.statuses[name]) - TOO_LONG for name in secured}
    assert told == {name: {401} for name in secured}
    assert found.never_succeeded() == sorted(secured)
    assert keyed_site.service.client.get("/v1/audit", params={"limit": 1}).json() == changes


def operations(site: Site) -> tuple[set[str], set[str]]:
    """The operations that need a key where there are keys, and those that are for everybody."""
    document = site.service.client.get("/openapi.json").json()
    secured: dict[str, bool] = {
        f"{method.upper()} {path}": bool(operation["security"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    return {name for name, is_secured in secured.items() if is_secured}, {n for n, s in secured.items() if not s}
