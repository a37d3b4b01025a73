"""The open connections of an API process: how many there are, and which of them end so that others can be served.

A connection holds a descriptor, and what its client has not taken of an answer. Both end here: with a client that takes
nothing for a while, whatever it asked for and whoever it is, and with the connection of somebody unknown who has been
waited for longest, where a newcomer finds no place.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import resource
import socket
import struct
import termios
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from app.api.rates import is_local, network_of
from app.errors import FettleError, TooManyRequests, Unready

if TYPE_CHECKING:
    from app.settings import Settings

log = logging.getLogger("fettle.connections")

OWN_DESCRIPTORS = 256
"""Left for the database, files, uploads and webhooks; at most half of what there are."""
HIGH_WATER_BYTES, LOW_WATER_BYTES = 65_536, 16_384
"""What is held of an answer until its maker has to wait for the client."""
KERNEL_BYTES = 131_072
"""What the kernel holds of an answer that its client has no room for; a fast client has more than that on its way."""
LEAST_BYTES = 10_000
"""A client with a larger rest of an answer takes at least so much of it within the time limit."""
MAX_UNSENT_BYTES = 268_435_456
"""What is held of all answers together, in this process's own memory, for clients that take nothing of them."""
LONGEST_LOOK_S = 1.0
"""Pause between two looks at all connections."""
STREAMS_SHARE = 0.8
"""Of the connections, those that may be streams."""
MADE_ROOM = 0.02
"""Of the places, those that are made free at once: a crowd of newcomers doesn't cost a search each."""
ENDLESS = 1_000_000
"""Connections where nothing limits them."""
RETRY_AFTER_S = 5


def most_connections(settings: Settings) -> int:
    """How many connections an API process with these settings may have: fewer than it has descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENDLESS
    if descriptors != resource.RLIM_INFINITY:
        most = max(1, descriptors - min(OWN_DESCRIPTORS, descriptors // 2))
    return min(most, settings.max_connections or ENDLESS)


def most_streams(settings: Settings) -> int:
    """How many of them may be streams, which stay: others find a place to call, or to end one."""
    return max(1, min(settings.max_streams, int(most_connections(settings) * STREAMS_SHARE)))


class Wire:
    """A transport that knows what its client has taken of what was written.

    In the place of an `asyncio.Transport`: what isn't here is the transport's own.
    """

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
        self._transport = transport
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        if self._socket is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):  # a Unix socket has none
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        self._written = 0
        self._mark, self._owed, self.stuck_since = 0, 0, now
        """What had been taken when the client last did its part, what it owed then, and when that was."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():  # else the client has left, and uvloop would raise
            self._written += len(data)
            self._transport.write(data)

    @property
    def unsent(self) -> int:
        """Bytes that this process holds of what was written."""
        return self._transport.get_write_buffer_size()

    def look(self, now: float) -> float:
        """For how long, in seconds, the client has owed something; 0 where it did its part since the last look."""
        unsent = self.unsent + self._in_kernel()
        taken = self._written - unsent
        if not unsent or taken - self._mark >= self._owed:
            self._mark, self._owed, self.stuck_since = taken, min(unsent, LEAST_BYTES), now
        return now - self.stuck_since

    def _in_kernel(self) -> int:
        """Bytes that the kernel holds until the client's own acknowledges them; 0 where it doesn't say."""
        if self._socket is None:
            return 0
        with contextlib.suppress(OSError):
            (held,) = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
            return int(held)
        return 0


class Held(Protocol):
    """What is asked of a connection."""

    wire: Wire
    is_known: bool
    """Whether a caller of the API came by it: one with a key, where there are keys."""

    @property
    def address(self) -> str | None:
        """The client's; None for a Unix socket."""

    @property
    def waiting_since(self) -> float | None:
        """Since when, by the loop's clock, it has waited for its client; None while a request is served."""


class Sockets:
    """The open connections of one API process. All methods belong to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.most = most_connections(settings)
        self._of_address = settings.max_connections_per_address
        self._proxies = [ipaddress.ip_network(proxy, strict=False) for proxy in settings.proxies]
        self._write_timeout_s = settings.write_timeout_s
        self._look_s = min(LONGEST_LOOK_S, settings.write_timeout_s / 4)
        self._open: dict[Held, str | None] = {}
        self._by_network: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Held) -> FettleError | None:
        """Count a new connection, also one that is to end at once: then the error that it is to be told."""
        network = self._counted_as(connection.address)
        self._open[connection] = network
        if network is not None:
            self._by_network[network] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)
        if network is not None and self._by_network[network] > self._of_address:
            if not self._make_room(connection, self._of_address, network):
                return TooManyRequests(
                    f"Expected at most {self._of_address:,} connections of one address. Received one more.",
                    retry_after_s=RETRY_AFTER_S,
                )
        elif len(self._open) > self.most and not self._make_room(connection, self.most):
            return Unready(f"Expected at most {self.most:,} connections to this process. Received one more.")
        return None

    def remove(self, connection: Held) -> None:
        """Count a connection no longer; one that isn't counted is none."""
        network = self._open.pop(connection, None)
        if network is not None:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]

    def _counted_as(self, address: str | None) -> str | None:
        """The network that a client's connections are counted in; None where there may be many clients behind it."""
        if address is None or is_local(address):
            return None
        is_proxy = any(ipaddress.ip_address(address.partition("%")[0]) in network for network in self._proxies)
        return None if is_proxy else network_of(address)

    def _make_room(self, newcomer: Held, places: int, network: str | None = None) -> bool:
        """Cut connections that were waited for longest, those of unknown clients first; whether there were any.

        `places` are those that are taken: all, or those of one network.
        """
        waiting = sorted(
            (
                (connection.is_known, since, connection)
                for connection, of in self._open.items()
                if connection is not newcomer
                and network in {None, of}
                and (since := connection.waiting_since) is not None
            ),
            key=lambda one: one[:2],
        )
        for is_known, _, connection in waiting[: max(1, int(places * MADE_ROOM))]:
            if is_known and connection is not waiting[0][-1]:
                break
            self._cut(connection)
        return bool(waiting)

    def _cut(self, connection: Held) -> None:
        self.remove(connection)  # counted no longer, although its descriptor is closed in a moment
        connection.wire.abort()

    def _look(self) -> None:
        """Cut the connections whose clients have taken nothing for too long, and look again in a moment."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        owing = {connection: connection.wire.look(now) for connection in self._open}
        late = [connection for connection, for_s in owing.items() if for_s >= self._write_timeout_s]
        for connection in late:
            self._cut(connection)
        if late:
            log.info("cut %d connections whose clients took nothing for %g s", len(late), self._write_timeout_s)
        self._lighten([connection for connection in self._open if owing[connection] > 0])
        self._timer = loop.call_later(self._look_s, self._look) if self._open else None

    def _lighten(self, owing: list[Held]) -> None:
        """Cut those that owe the most, where more is held for all clients than there is memory for."""
        held = sum(connection.wire.unsent for connection in self._open)
        count = 0
        for connection in sorted(owing, key=lambda connection: connection.wire.unsent, reverse=True):
            if held <= MAX_UNSENT_BYTES:
                break
            held -= connection.wire.unsent
            self._cut(connection)
            count += 1
        if count:
            log.info("cut %d connections: more than %d bytes wait for clients", count, MAX_UNSENT_BYTES)
