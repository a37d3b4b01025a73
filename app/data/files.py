"""Where data sets lie: files named by their own SHA-256, below one fsspec location.

Two data sets of equal content share a file. A file goes with the last of them, and an upload may come at that moment:
`remove` moves it aside, looks whether it is wanted again, and moves it back where it is; an upload looks, once its row
is committed, whether the file is still there (`ensure`). One of the two sees the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fsspec.core import url_to_fs

from app.data.normal import hash_of
from app.scratch import Scratch

SUFFIX = ".npz"


class Damaged(Exception):
    """A file whose content is not what its name says."""


class DatasetFiles:
    """The files below `url`: a path of this machine, or any location that fsspec knows. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._files, root = url_to_fs(url)
        self._root = root.rstrip("/")

    def has(self, digest: str) -> bool:
        """Whether there is a file of this hash.

        Raises:
            OSError: the location can't be reached.
        """
        self._files.invalidate_cache()
        return bool(self._files.exists(self._path(digest)))

    def ensure(self, digest: str, source: Path) -> None:
        """Have the file of this hash, which is also at `source`, whole or not at all.

        Raises:
            OSError: the location can't be written.
        """
        if self.has(digest):
            return
        target = self._path(digest)
        part = f"{target}.{secrets.token_hex(6)}.part"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            self._files.put_file(str(source), part)
            self._files.mv(part, target)
        except BaseException:
            with suppress(OSError):
                self._files.rm_file(part)
            raise

    def fetch(self, digest: str, target: Path) -> None:
        """Copy the file of this hash to `target`, verified; whole or not at all.

        Raises:
            FileNotFoundError: there is none.
            Damaged: it has another content.
            OSError: the location can't be read.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with Scratch("part", within=target.parent) as beside:
            part = beside.path / target.name
            self._files.get_file(self._path(digest), str(part))
            found = hash_of(part)
            if found != digest:
                raise Damaged(f"Expected a file with the SHA-256 {digest}. Received one with {found}.")
            part.replace(target)

    def remove(self, digest: str, is_wanted: Callable[[], bool]) -> None:
        """Delete the file of this hash, unless `is_wanted` says, once it was moved aside, that it is wanted again.

        Raises:
            OSError: the location can't be written; the file may be left.
        """
        path = self._path(digest)
        aside = f"{path}.{secrets.token_hex(6)}.removed"
        try:
            self._files.mv(path, aside)
        except FileNotFoundError:
            return
        if is_wanted():
            self._files.mv(aside, path)
        else:
            self._files.rm_file(aside)

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}{SUFFIX}"
