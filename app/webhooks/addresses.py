"""Where webhooks may go: addresses of the public internet, and networks that the operator allows.

A name is resolved when it is connected to, every address that it has is judged, and the connection is made to one of
those very addresses: an answer of the resolver that changes between the check and the connection changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from httpcore import AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream, ConnectError, ConnectTimeout

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

MAX_URL = 2_000
MOST_ADDRESSES = 32
"""Addresses of one name; one with more is no receiver's."""
RESOLVERS = 8
"""Names that are resolved at once: a silent name server holds no other work of the process up."""

_networks = ipaddress.ip_network
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is routed on the internet; NAT64, mapped and local addresses lie outside (RFC 4291, 6052)."""
NEVER: tuple[Network, ...] = (
    _networks("0.0.0.0/8"),  # this host (RFC 1122)
    _networks("100.64.0.0/10"),  # shared by carriers (RFC 6598)
    _networks("169.254.0.0/16"),  # link-local, metadata of clouds (RFC 3927)
    _networks("192.0.0.0/24"),  # protocol assignments (RFC 6890)
    _networks("192.88.99.0/24"),  # relays of 6to4 (RFC 7526)
    _networks("198.18.0.0/15"),  # benchmarks (RFC 2544)
    _networks("240.0.0.0/4"),  # reserved, broadcast (RFC 1112)
    _networks("2001::/23"),  # protocol assignments, Teredo: an IPv4 address in it (RFC 2928, 4380)
    _networks("2001:db8::/32"),  # documentation (RFC 3849)
    _networks("2002::/16"),  # 6to4: an IPv4 address in it (RFC 3056)
    _networks("3fff::/20"),  # documentation (RFC 9637)
)
"""What Python's `is_global` has not said of all of these in all versions."""
NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")


class Forbidden(Exception):
    """An address that webhooks may not go to, or a URL that is none of a receiver; the message says why."""


def parse_networks(setting: str) -> tuple[Network, ...]:
    """The networks in a comma-separated list of CIDRs.

    Raises:
        ValueError: one that is none.
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in setting.split(",") if part.strip())


def check_address(address: Address, allowed: Sequence[Network]) -> None:
    """Return where webhooks may go to this address.

    Raises:
        Forbidden: they may not.
    """
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    judged = mapped or address
    if any(judged in network for network in allowed):
        return
    public = judged.is_global and not judged.is_multicast and not judged.is_reserved
    if isinstance(judged, ipaddress.IPv6Address):
        public = public and judged in GLOBAL_UNICAST
    if not public or any(judged in network for network in NEVER):
        raise Forbidden(
            "Expected a receiver with public addresses alone, or in a network that the operator allows "
            f"(FETTLE_WEBHOOK_ALLOWED_NETWORKS). Received one at {address}."
        )


def check_url(text: str, allowed: Sequence[Network]) -> httpx.URL:
    """The URL of a receiver, as it is connected to. A name in it is judged when it is resolved.

    Raises:
        Forbidden: it is none, or names an address that webhooks may not go to.
    """
    if len(text) > MAX_URL or not text.isprintable() or not text.isascii() or " " in text or "\\" in text:
        raise Forbidden(f"Expected a URL of at most {MAX_URL:,} printable ASCII characters. Received another text.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise Forbidden("Expected a URL such as https://example.com/hooks. Received one that can't be read.") from None
    if url.scheme not in {"https", "http"} or not url.host:
        raise Forbidden("Expected a URL such as https://example.com/hooks. Received one without https or a host.")
    if url.userinfo or "@" in text.partition("://")[2].split("/", 1)[0] or url.fragment:
        raise Forbidden("Expected a URL without a user and without a fragment. Received one that has them.")
    if url.port is not None and not 0 < url.port < 65_536:
        raise Forbidden(f"Expected a port from 1 to 65535. Received: {url.port}")
    host = url.raw_host.decode("ascii")
    literal = as_address(host)
    if literal is not None:
        check_address(literal, allowed)
    elif NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        # 2130706433, 0x7f.1 and 127.1 are addresses to some, names to others (WHATWG URL, "ends in a number").
        raise Forbidden(f"Expected an IPv4 address as four decimal numbers, or a name. Received: {host[:100]!r}")
    return url


def check_name(url: httpx.URL, allowed: Sequence[Network]) -> None:
    """Return where no address that the host of a checked URL has now is forbidden; one without any may get one later.

    A courtesy to whoever adds a webhook: what counts is the same check at every connection.

    Raises:
        Forbidden: one is.
    """
    try:
        found = look_up(url.raw_host.decode("ascii"), url.port or 443)
    except (OSError, UnicodeError):
        return
    for text in found:
        check_address(ipaddress.ip_address(text), allowed)


def as_address(host: str) -> Address | None:
    """The address that a host is by itself, None for a name. Scopes such as `%eth0` are no part of one."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Resolver:
    """Names to addresses, on threads of its own. Thread-safe."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVERS, "resolve")

    def close(self) -> None:
        """Let the threads go; one that waits for a name server ends with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def addresses(self, host: str, port: int) -> list[Address]:
        """All addresses of a name, in the resolver's order.

        Raises:
            ConnectError: it has none, or too many.
        """
        literal = as_address(host)
        if literal is not None:
            return [literal]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up, host, port)
        except (OSError, UnicodeError) as error:
            raise ConnectError(f"The name {host[:100]!r} has no address: {error}") from error
        if not 0 < len(found) <= MOST_ADDRESSES:
            raise ConnectError(f"The name {host[:100]!r} has {len(found)} addresses.")
        return [ipaddress.ip_address(text) for text in found]


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name as text, without scopes."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]).partition("%")[0] for *_, place in answers))


class CheckedNetwork(AsyncNetworkBackend):
    """Connections to names whose addresses are all allowed, made to one of the addresses that were judged."""

    def __init__(self, resolver: Resolver, allowed: Sequence[Network]) -> None:
        self._resolver = resolver
        self._allowed = allowed
        self._sockets = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore calls it
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> AsyncNetworkStream:
        """A connection to the first address of `host` that answers.

        Raises:
            Forbidden: one of its addresses is no receiver's.
            ConnectError, ConnectTimeout: none answers.
        """
        found = await self._resolver.addresses(host, port)
        for address in found:
            check_address(address, self._allowed)
        failure: ConnectError | ConnectTimeout | None = None
        for address in found:
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (ConnectError, ConnectTimeout) as error:
                failure = error
        raise failure or ConnectError("There is no address to connect to.")
