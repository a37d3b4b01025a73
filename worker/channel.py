"""JSON messages in length-prefixed frames over a pipe, validated as they come in."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from worker.protocol import Message

M = TypeVar("M")
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A longer frame is garbage: the largest honest one, an epoch of a wide stack, is below 1 MB."""


class ChannelBroken(Exception):
    """The other end is gone, or sent what is no message."""


class Channel(Generic[M]):
    """One end of the pipe: sends messages, receives those that `incoming` describes. For one thread."""

    def __init__(self, connection: Connection, incoming: TypeAdapter[M]) -> None:
        self._connection = connection
        self._incoming = incoming

    def send(self, message: Message) -> None:
        """Send `message`.

        Raises:
            ChannelBroken: the other end is gone.
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
            ChannelBroken: the other end is gone, or what came is no message.
        """
        try:
            frame = self._connection.recv_bytes(MAX_FRAME_BYTES)
        except (OSError, EOFError) as error:
            raise ChannelBroken(f"The pipe was closed by the other end: {error!r}") from error
        try:
            return self._incoming.validate_json(frame)
        except ValidationError as error:
            raise ChannelBroken(
                f"Expected a message. Received: {frame[:200]!r} ({error.error_count()} errors)"
            ) from error

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
