"""What the HTTP server is told about connections: limits on what comes before a body, and who may name the client.

uvicorn's parser takes headers of any size for any time. This protocol counts them and looks at the clock, and refuses
what two parsers could understand in two ways. How many connections there may be, and how long a client may leave an
answer lying, is for `app.api.sockets`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.problems import of_error
from app.api.sockets import Sockets, Wire
from app.errors import BadRequest, FettleError, HeadersTooLarge, RequestTimeout, UriTooLong

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

    from app.settings import Settings

MAX_URL_BYTES = 8_000
"""Path and query: what RFC 9110 asks every server to take."""
MAX_HEADER_BYTES = 32_768
"""All headers of a request together."""
MAX_HEADERS = 100
MAX_PIPELINED = 100
"""Requests that wait on a connection for the answers to earlier ones."""
HOST = re.compile(rb"[0-9A-Za-z._~%!$&'()*+;=:\[\]-]*")
"""A name or an address, and a port (RFC 9110, 7.2)."""


class Connection(HttpToolsProtocol):
    """A connection whose requests' heads are bounded in size and time."""

    sockets: Sockets
    header_timeout_s = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._went_on = False
        self._idle_bytes = 0
        self._refusal: FettleError | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since = self.loop.time()
        self._served: RequestResponseCycle | None = None
        self.is_known = False

    @property
    def address(self) -> str | None:
        """The client's; None for a Unix socket."""
        return None if self.client is None else self.client[0]

    @property
    def waiting_since(self) -> float | None:
        """Since when it has waited for its client; None while a request is served."""
        if self._is_between():
            return self._idle_since
        return self.wire.stuck_since if self.flow.write_paused else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.wire = Wire(transport, self.loop.time())
        super().connection_made(cast("asyncio.Transport", self.wire))
        refusal = self.sockets.add(self)
        if refusal is not None:
            self._refuse(refusal)
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.sockets.remove(self)
        super().connection_lost(exc)
        if self._served is not None:  # uvicorn tells the newest request alone, which may wait for this one
            self._served.disconnected = True
            self._served.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._went_on = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        # What the parser holds back is part of a head, of a trailer or of a chunk's extensions.
        self._idle_bytes = 0 if self._went_on else self._idle_bytes + len(data)
        if self._idle_bytes > MAX_URL_BYTES + MAX_HEADER_BYTES:
            self._refuse(_headers_too_large())
        elif self._is_between():
            self._wait_for_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._went_on = self._in_head = True
        if self._is_between():
            self._wait_for_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # the fields of a trailer are none of the request's headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._went_on = False, True
        self._stop_waiting()
        version = self.parser.get_http_version()
        self._refusal = _problem_of_head(version, self.url, self.headers)
        if self._refusal is None and self._is_upgrade_with_body():
            self._refusal = BadRequest("Expected no Upgrade beside a body: this service speaks HTTP/1.1 alone.")
        if self._refusal is not None:
            raise ValueError(self._refusal.detail)  # ends in send_400_response
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        self.scope["state"]["connection"] = self
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser takes what follows for the other protocol

    def on_body(self, body: bytes) -> None:
        self._went_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._went_on = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()  # what waits is answered before more is taken

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or _no_http(msg))

    def _refuse(self, error: FettleError) -> None:
        """Answer with a problem, and end the connection; a request that is whole is answered first."""
        if self.transport.is_closing():
            return
        if not self._is_between() and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if self._is_between():
            self._answer(error)
        elif not self.cycle.response_started and not self.pipeline:
            self._answer(error)
            self.cycle.disconnected = True  # whoever waits for the rest of the body is told that it won't come
            self.cycle.message_event.set()
        self.transport.close()

    def _answer(self, error: FettleError) -> None:
        response = of_error(error)
        head = [STATUS_LINE[error.status], b"connection: close\r\n"]
        head += [b"%s: %s\r\n" % header for header in response.raw_headers]
        self.transport.write(b"".join([*head, b"\r\n", bytes(response.body)]))

    def _is_upgrade_with_body(self) -> bool:
        return self.parser.should_upgrade() and any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
            for name, value in self.headers
        )

    def _is_between(self) -> bool:
        """Whether no request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _wait_for_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_timeout_s, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if not self._idle_bytes and not self._went_on:
            self.transport.close()  # never said a word
            return
        self._refuse(RequestTimeout(f"Expected the headers of a request within {self.header_timeout_s:g} s."))


def _problem_of_head(version: str, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> FettleError | None:
    """What is wrong with a request by its first line and headers."""
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if version not in {"1.0", "1.1"}:
        return _no_http("another version")
    if len(url) > MAX_URL_BYTES:
        return UriTooLong(f"Expected a path and query of at most {MAX_URL_BYTES:,} bytes. Received: {len(url):,}")
    if size > MAX_HEADER_BYTES or len(headers) > MAX_HEADERS:
        return _headers_too_large()
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return BadRequest(f"Expected one Host header. Received: {len(hosts) or 'none'}")
    if not all(HOST.fullmatch(host) for host in hosts):
        return BadRequest("Expected a Host header with a name or an address, and a port. Received another text.")
    # Some take a body of another coding for a chunked one, some for none: the next request may hide in it.
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        shown = b", ".join(codings).decode("latin-1")
        return BadRequest(f"Expected a body with a Content-Length, or chunked by HTTP/1.1. Received: {shown[:100]!r}")
    return None


def _no_http(what: str) -> BadRequest:
    return BadRequest(f"Expected a request of HTTP/1.1. Received something else: {what}")


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"Expected at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES:,} bytes together.")


def server_options(settings: Settings) -> dict[str, Any]:
    """What `uvicorn.Config` is given for a service with these settings."""
    protocol = type(
        "Connection", (Connection,), {"header_timeout_s": settings.header_timeout_s, "sockets": Sockets(settings)}
    )
    return {
        "http": protocol,
        "ws": "none",
        "server_header": False,
        "proxy_headers": bool(settings.proxies),
        "forwarded_allow_ips": settings.proxies,
    }
