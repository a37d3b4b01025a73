"""Who may come in, and how often: looked at once the caller is known, before a body is read.

An open service trusts whoever reaches it, so it has to make sure that this is no web page: a browser on the same
machine reaches it too. A page of another site shows itself by its `Origin`; one that made its own name point here (DNS
rebinding) by the `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request

from app.api.places import StreamPlaces
from app.api.rates import Budget, Rates, is_local, network_of
from app.api.sockets import most_streams
from app.errors import CrossOrigin, Misdirected

if TYPE_CHECKING:
    from app.domain.access import Caller
    from app.settings import Settings

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PROBES = ("/healthz", "/readyz", "/metrics")
"""Asked by whatever watches the service, under any name, and never refused."""
HEAVY = {
    ("POST", "/v1/studies"),
    ("POST", "/v1/studies:validate"),
    ("POST", "/v1/datasets"),
    ("GET", "/v1/studies/{study_id:id}/best"),
    ("GET", "/v1/studies/{study_id:id}/importances"),
    ("GET", "/v1/studies/{study_id:id}/plots/{kind:id}"),
    ("GET", "/v1/studies/{study_id:id}/export"),
    ("GET", "/v1/studies/{study_id:id}/report"),
}


def budgets_of(path: str, methods: Collection[str]) -> tuple[Budget, ...]:
    """Which budgets calls of a route are counted in, none for probes: a new study is a write, and checked as well."""
    if path in PROBES:
        return ()
    is_heavy = any((method, path) in HEAVY for method in methods)
    if is_heavy and path == "/v1/studies":
        return ("writes", "heavy")
    if is_heavy:
        return ("heavy",)
    return ("reads",) if set(methods) <= set(SAFE_METHODS) else ("writes",)


class Gate:
    """The rules for all calls of this process."""

    def __init__(self, settings: Settings) -> None:
        self.rates = Rates(settings)
        self.streams = StreamPlaces(most_streams(settings), settings.max_streams_per_key)
        self._hosts = settings.hosts
        self._origins = frozenset(settings.origins)

    def admit(self, request: Request, caller: Caller, budgets: Sequence[Budget]) -> None:
        """Let a call in, or say why not.

        Raises:
            Misdirected: it names a host that the service doesn't go by.
            CrossOrigin: another site's page sent it to an open service.
            TooManyRequests: the caller has used up one of the budgets.
        """
        if not budgets:
            return
        self._check_host(request, is_open=caller.key_id is None)
        if caller.key_id is None and request.method not in SAFE_METHODS:
            self._check_origin(request)
        who = caller_of(request, caller)
        if who is None:
            return
        for budget in budgets:
            standing = self.rates.spend(who, budget)
            if standing is not None:
                request.state.rate_headers = standing.headers()

    def _check_host(self, request: Request, *, is_open: bool) -> None:
        host = host_of(request.headers.get("host", ""))
        if host in self._hosts or _cannot_be_rebound(host) or not (is_open or self._hosts):
            return
        raise Misdirected(
            f"Expected a host that the service goes by: {', '.join(sorted(self._hosts)) or 'localhost, an address'}. "
            f"Received: {host[:100]!r}. The operator names others in FETTLE_ALLOWED_HOSTS."
        )

    def _check_origin(self, request: Request) -> None:
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin in self._origins:
            return
        if site is not None:
            if site in {"same-origin", "none"}:
                return
        elif origin is None or origin.partition("://")[2] == request.headers.get("host"):
            return
        raise CrossOrigin(
            f"Expected a call from no page, or from one of an origin in FETTLE_CORS_ORIGINS. Received: {origin!r:.100}"
        )


def caller_of(request: Request, caller: Caller) -> str | None:
    """Whom a call is counted for: the key, else the client's address; None where that is this machine."""
    if caller.key_id is not None:
        return f"key {caller.key_id}"
    address = request.client.host if request.client is not None else None
    return None if is_local(address) else f"address {network_of(address)}"


def host_of(header: str) -> str:
    """The name in a `Host` header, without its port and in lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def _cannot_be_rebound(host: str) -> bool:
    """Whether no stranger can make this name point here: an address, or a name that no public DNS serves."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(".localhost"))
    return True
