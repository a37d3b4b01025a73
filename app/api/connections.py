"""What the HTTP server is told about connections: limits on what comes before a body, and who may name the client.

uvicorn's parser takes headers of any size for any time. This protocol counts them and looks at the clock.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.problems import of_error
from app.errors import BadRequest, FettleError, HeadersTooLarge, RequestTimeout, UriTooLong

if TYPE_CHECKING:
    from app.settings import Settings

MAX_URL_BYTES = 8_000
"""Path and query: what RFC 9110 asks every server to take."""
MAX_HEADER_BYTES = 32_768
"""All headers of a request together."""
MAX_HEADERS = 100


class Connection(HttpToolsProtocol):
    """A connection whose requests' heads are bounded in size and time."""

    header_timeout_s = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._went_on = False
        self._idle_bytes = 0
        self._refusal: FettleError | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

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
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self.parser.get_http_version() not in {"1.0", "1.1"}:
            self._refusal = _no_http("another version")
        elif len(self.url) > MAX_URL_BYTES:
            self._refusal = UriTooLong(
                f"Expected a path and query of at most {MAX_URL_BYTES:,} bytes. Received: {len(self.url):,}"
            )
        elif size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            self._refusal = _headers_too_large()
        if self._refusal is not None:
            raise ValueError(self._refusal.detail)  # ends in send_400_response
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._went_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._went_on = True
        super().on_message_complete()

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
            response = of_error(error)
            head = [STATUS_LINE[error.status], b"connection: close\r\n"]
            head += [b"%s: %s\r\n" % header for header in response.raw_headers]
            self.transport.write(b"".join([*head, b"\r\n", bytes(response.body)]))
        self.transport.close()

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


def _no_http(what: str) -> BadRequest:
    return BadRequest(f"Expected a request of HTTP/1.1. Received something else: {what}")


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"Expected at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES:,} bytes together.")


def server_options(settings: Settings) -> dict[str, Any]:
    """What `uvicorn.Config` is given for a service with these settings."""
    protocol = type("Connection", (Connection,), {"header_timeout_s": settings.header_timeout_s})
    return {
        "http": protocol,
        "ws": "none",
        "server_header": False,
        "proxy_headers": bool(settings.proxies),
        "forwarded_allow_ips": settings.proxies,
    }
