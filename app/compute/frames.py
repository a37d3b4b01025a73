"""Messages between a process and its children: the length as eight bytes, then a pickle of our own making.

Both ends are this code, and the children are started by it: nothing that came over the network is unpickled.
"""

from __future__ import annotations

import pickle
import struct
from typing import IO, Any

HEAD = struct.Struct(">Q")


def packed(message: Any) -> bytes:
    """A message as bytes."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(len(content)) + content


def unpacked(content: bytes) -> Any:
    """The message of these bytes, which come without their length."""
    return pickle.loads(content)  # noqa: S301 - see above


def read(stream: IO[bytes]) -> Any:
    """The next message of a stream.

    Raises:
        EOFError: the other end is closed.
    """
    (length,) = HEAD.unpack(_exactly(stream, HEAD.size))
    return unpacked(_exactly(stream, length))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content
