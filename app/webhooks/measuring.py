"""Connections to receivers, of which only so much is read.

All bytes count, also those of interim answers without end and of chunks of one byte: each costs more to read than to
send, and it is read on the event loop. So little is read at once that others are served in between.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from app.webhooks.addresses import SocketOption

MAX_WIRE_BYTES = 65_536
"""What is read of a connection for one answer."""
READ_BYTES = 4_096
"""What is read at once: a hundred interim answers, a few milliseconds."""


class AnswerTooLong(httpcore.ReadError):
    """More came of an answer than is read of one."""


class MeasuredNetwork(httpcore.AsyncNetworkBackend):
    """Connections of which only so much is `left` to be read for one answer."""

    def __init__(self, network: httpcore.AsyncNetworkBackend) -> None:
        self._network = network
        self.left = 0

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore calls it
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _MeasuredStream(
            await self._network.connect_tcp(host, port, timeout, local_address, socket_options), self
        )


class _MeasuredStream(httpcore.AsyncNetworkStream):
    """One of these connections."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, network: MeasuredNetwork) -> None:
        self._stream = stream
        self._network = network

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """What came next, a little at a time.

        Raises:
            AnswerTooLong: there was more of the answer than is read of one.
        """
        data = await self._stream.read(min(max_bytes, READ_BYTES), timeout)
        self._network.left -= len(data)
        if self._network.left < 0:
            raise AnswerTooLong(f"Expected an answer of at most {MAX_WIRE_BYTES:,} bytes. Received more.")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _MeasuredStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
