"""Files that are named instead of sent: only below roots that the operator allows.

A root is `file:///folder` or a prefix of a store such as `s3://bucket/folder`. A path is compared once it is
resolved: no `..`, no symbolic link out of its root, no chain of protocols, no user or query in a URI.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from app.data.reading import refuse

COPIED_AT_ONCE = 2**20
MAX_URI = 2_000
URI = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>[^?#@\s\\]*)")


class TooLarge(Exception):
    """A file over the limit."""


class Unreadable(OSError):
    """A file that can't be read: it is gone, or was swapped since it was found, or its store is away.

    What a store says may hold names and addresses that are not the caller's: the caller is told the `kind` alone.
    """

    @property
    def kind(self) -> str:
        """The name of the error that caused this one."""
        return type(self.__cause__).__name__


@dataclass(frozen=True, slots=True)
class Named:
    """A file below a root: its protocol, and its path as fsspec takes it."""

    protocol: str
    path: str

    def copy(self, target: Path, most_bytes: int) -> str:
        """Copy the file to `target`; its SHA-256.

        Raises:
            Unreadable: it can't be read.
            TooLarge: it has more than `most_bytes`.
            OSError: `target` can't be written.
        """
        digest, size = hashlib.sha256(), 0
        with self._opened() as source, target.open("wb") as copy:
            while chunk := _read(source):
                size += len(chunk)
                if size > most_bytes:
                    raise TooLarge(f"Expected a file of at most {most_bytes:,} bytes. Received a larger one")
                digest.update(chunk)
                copy.write(chunk)
        return digest.hexdigest()

    def _opened(self) -> Any:
        try:
            if self.protocol == "file":
                return open_resolved(self.path)
            import fsspec

            return fsspec.filesystem(self.protocol).open(self.path, "rb")
        except Exception as error:  # stores raise errors of their own making
            raise Unreadable(f"{error}") from error


def _read(source: Any) -> bytes:
    try:
        content: bytes = source.read(COPIED_AT_ONCE)
    except Exception as error:
        raise Unreadable(f"{error}") from error
    return content


def open_resolved(path: str) -> BinaryIO:
    """A file by its resolved, absolute path, opened for reading.

    The path was judged a moment ago. No part of it may have become a symbolic link since, so it is walked from the top
    without following any; and it must still be a file, not a pipe that nobody writes to or a device.

    Raises:
        OSError: it can't be read, is no file, or a part of it is a link now.
    """
    *folders, name = Path(path).parts[1:]
    place = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            os.close(place)
            place = below
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError("Expected a file. Received something else under its name.")
    return os.fdopen(found, "rb")


def roots_of(setting: str) -> list[str]:
    """The roots in a comma-separated setting."""
    return [root.strip() for root in setting.split(",") if root.strip()]


def locate(uri: str, roots: Sequence[str]) -> Named:
    """The file that a URI names, where it lies below one of the roots.

    Raises:
        InvalidDataset: it doesn't, or is no URI of a file.
    """
    loc = ("uri",)
    if not roots:
        refuse(loc, "Expected an upload: this service's operator allows no roots for URIs (FETTLE_DATASET_ROOTS).")
    match = URI.fullmatch(uri) if len(uri) <= MAX_URI and "::" not in uri and uri.isprintable() else None
    if match is None:
        refuse(loc, f"Expected a URI such as file:///folder/data.csv. Received: {uri[:200]!r}")
    protocol, rest = match["protocol"], unquote(match["rest"])
    if "\0" in rest or ".." in rest.split("/"):
        refuse(loc, f"Expected a path without `..`. Received: {uri[:200]!r}")
    offered = [_split(root) for root in roots]
    if protocol not in {known for known, _ in offered}:
        known = ", ".join(sorted({f"{p}://" for p, _ in offered}))
        refuse(loc, f"Expected a URI that begins with {known}. Received: {uri[:200]!r}")
    if protocol == "file":
        return _local(uri, rest, [path for known, path in offered if known == "file"])
    path = rest.strip("/")
    for known, root in offered:
        if known == protocol and path.startswith(f"{root.strip('/')}/".lstrip("/")):
            return Named(protocol, path)
    return refuse(loc, f"Expected a file below the roots that this service's operator allows. Received: {uri[:200]!r}")


def _split(root: str) -> tuple[str, str]:
    protocol, separator, path = root.partition("://")
    return (protocol, path) if separator else ("file", root)


def _local(uri: str, path: str, roots: Sequence[str]) -> Named:
    """A file of this machine. What lies outside of all roots is not told from what doesn't exist."""
    # A name may be longer than the system takes, or become another thing from one call to the next.
    with suppress(OSError, ValueError):
        real = Path(os.path.realpath(path)) if path.startswith("/") else None
        inside = real is not None and any(real.is_relative_to(os.path.realpath(root)) for root in roots)
        if inside and stat.S_ISREG(os.lstat(str(real)).st_mode):
            return Named("file", str(real))
    return refuse(
        ("uri",), f"Expected a file below the roots that this service's operator allows. Received: {uri[:200]!r}"
    )
