"""JSON messages in length-prefixed frames over a pipe, validated as they come in."""

from __future__ import annotations

import os
import socket
import struct
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from worker.trainer.protocol import Message

M = TypeVar("M")
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A longer frame is garbage: the largest honest one, an epoch of a wide stack, is below 1 MB."""


class ChannelBroken(Exception):
    """The other end is gone, sent what is no message, or stands still in the middle of one."""


class Channel(Generic[M]):
    """One end of the pipe: sends messages, receives those that `incoming` describes. For one thread.

    With `stalled_s` it gives up on an end that neither reads nor writes on, in the middle of a message, for so long.
    """

    def __init__(self, connection: Connection, incoming: TypeAdapter[M], stalled_s: float | None = None) -> None:
        self._connection = connection
        self._incoming = incoming
        if stalled_s is not None:
            _limit_waits(connection, stalled_s)

    def send(self, message: Message) -> None:
        """Send `message`.

        Raises:
            ChannelBroken: the other end is gone, or doesn't read.
        """
        try:
            self._connection.send_bytes(message.__pydantic_serializer__.to_json(message))
        except (OSError, ValueError) as error:
            raise ChannelBroken(f"The pipe is closed: {error}") from error

    def poll(self, timeout_s: float) -> bool:
        """Whether a message, or the end of the pipe, comes within `timeout_s` seconds."""
        try:
            return self._connection.poll(timeout_s)
        except (OSError, EOFError):
            return True  # `receive` says what is wrong

    def receive(self) -> M:
        """The next message; waits for it.

        Raises:
            ChannelBroken: the other end is gone, stopped in mid-message, or sent what is no message.
        """
        try:
            frame = self._connection.recv_bytes(MAX_FRAME_BYTES)
        except BlockingIOError as error:
            raise ChannelBroken("Expected the rest of a message. It did not come.") from error
        except EOFError as error:
            raise ChannelBroken("The pipe was closed by the other end.") from error
        except OSError as error:
            raise ChannelBroken(f"The pipe broke: {error}.") from error
        try:
            return self._incoming.validate_json(frame)
        except ValidationError as error:
            raise ChannelBroken(
                f"Expected a message. Received: {frame[:200]!r} ({error.error_count()} errors)"
            ) from error

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


def _limit_waits(connection: Connection, seconds: float) -> None:
    """Let reads and writes of a connection, which is a pair of sockets, fail that wait for longer; not `poll`."""
    limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))  # struct timeval, socket(7)
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
