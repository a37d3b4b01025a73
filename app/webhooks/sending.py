"""One request to a receiver: signed, to a checked address, and over within the time that it may take.

No redirect is followed, no proxy of the environment is used, no cookie is kept, and of an answer the status counts.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpcore
import httpx

from app import __version__
from app.webhooks.addresses import CheckedNetwork, Forbidden, Network, Resolver, check_url
from app.webhooks.measuring import MAX_WIRE_BYTES, AnswerTooLong, MeasuredNetwork
from app.webhooks.signing import signature

MAX_ANSWER_BYTES = 16_384
"""What is read of an answer, so that its connection can be used again; a longer one costs the connection."""
GONE = 410
"""The status by which a receiver says that it wants no more."""
MAX_WORDS = 300


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where messages go, and what they are signed with."""

    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Answered:
    """How a request ended: the `status` where an answer came, and why it counts as none, in words, as `error`."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has the message."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections to one receiver, and what is left to be read of them."""

    pool: httpcore.AsyncConnectionPool
    network: MeasuredNetwork


class Sender:
    """Makes requests. For one event loop; close it."""

    def __init__(self, allowed: Sequence[Network], timeout_s: float) -> None:
        self._allowed = tuple(allowed)
        self._timeout_s = timeout_s
        self._resolver = Resolver()
        self._trust: ssl.SSLContext | None = None

    def close(self) -> None:
        """Release its threads."""
        self._resolver.close()

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[Connections]:
        """Connections to one receiver, kept open between its messages."""
        self._trust = self._trust or await asyncio.to_thread(httpx.create_ssl_context)
        network = MeasuredNetwork(CheckedNetwork(self._resolver, self._allowed))
        async with httpcore.AsyncConnectionPool(
            ssl_context=self._trust, network_backend=network, max_connections=1, retries=0, http2=False
        ) as pool:
            yield Connections(pool, network)

    async def send(self, to: Connections, receiver: Receiver, message_id: str, body: bytes) -> Answered:
        """Send one message; how that ended. Nothing but a cancellation is raised."""
        try:
            url = check_url(receiver.url, self._allowed)
            async with asyncio.timeout(self._timeout_s):
                return await _exchange(to, url, _headers(receiver, url, message_id, body), body)
        except TimeoutError:
            return Answered(error=f"No answer within {self._timeout_s:g} seconds.")
        except Forbidden as error:
            return Answered(error=str(error))
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Answered(error=f"{type(error).__name__}: {error}"[:MAX_WORDS])
        except (httpcore.UnsupportedProtocol, ValueError, RuntimeError) as error:
            return Answered(error=f"The request could not be made: {type(error).__name__}"[:MAX_WORDS])


def send_once(
    receiver: Receiver, message_id: str, body: bytes, allowed: Sequence[Network], timeout_s: float
) -> Answered:
    """Send one message from a thread without an event loop; how that ended."""

    async def once() -> Answered:
        sender = Sender(allowed, timeout_s)
        try:
            async with sender.connections() as connections:
                return await sender.send(connections, receiver, message_id, body)
        finally:
            sender.close()

    return asyncio.run(once())


def _headers(receiver: Receiver, url: httpx.URL, message_id: str, body: bytes) -> list[tuple[bytes, bytes]]:
    timestamp = int(time.time())
    signed = signature(receiver.secret, message_id, timestamp, body)
    return [
        (b"Host", url.netloc),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", str(len(body)).encode()),
        (b"User-Agent", f"fettle/{__version__}".encode()),
        (b"webhook-id", message_id.encode()),
        (b"webhook-timestamp", str(timestamp).encode()),
        (b"webhook-signature", signed.encode()),
    ]


async def _exchange(to: Connections, url: httpx.URL, headers: list[tuple[bytes, bytes]], body: bytes) -> Answered:
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    to.network.left = MAX_WIRE_BYTES
    async with to.pool.stream("POST", target, headers=headers, content=body) as response:
        read = 0
        try:
            async for chunk in response.aiter_stream():
                read += len(chunk)
                if read > MAX_ANSWER_BYTES:
                    break
        except AnswerTooLong:
            pass  # its status is known
    status = response.status
    if 200 <= status < 300:
        return Answered(status)
    more = " Redirects are not followed." if 300 <= status < 400 else ""
    return Answered(status, f"Expected a status of 2xx. Received: {status}.{more}", _retry_after(response))


def _retry_after(response: httpcore.Response) -> float | None:
    """The seconds that a receiver asks to be left alone, where it says so in seconds."""
    for name, value in response.headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) <= 6:
            return float(value)
    return None
