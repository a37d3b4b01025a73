"""Files below an fsspec location, by their paths relative to it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

log = logging.getLogger("fettle.upkeep")


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its path below the location, its size in bytes, and when it was last written, in Unix seconds."""

    path: str
    size_bytes: int
    written_at: float


class Location:
    """What lies below `url`: a path of this machine, or any location that fsspec knows."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # a tenth of a second that most commands need not pay

        self.url = url
        self.files, root = url_to_fs(url)
        self.root = root.rstrip("/")

    def at(self, path: str) -> str:
        """The place of `path`, as the file system names it."""
        return f"{self.root}/{path}"

    def below(self, folder: str) -> Iterator[Found]:
        """The files below a folder; none where there is no such folder.

        Raises:
            OSError: the location can't be read.
        """
        self.files.invalidate_cache()
        try:
            found = self.files.find(self.at(folder) if folder else self.root, detail=True)
        except FileNotFoundError:
            return
        for name, about in found.items():
            yield Found(self._relative(name), int(about.get("size") or 0), _written_at(about))

    def folders(self) -> list[str]:
        """The names of the folders right below the location; none where it doesn't exist yet.

        Raises:
            OSError: the location can't be read.
        """
        self.files.invalidate_cache()
        try:
            listed = self.files.ls(self.root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(self._relative(one["name"]) for one in listed if one["type"] == "directory")

    def has(self, path: str) -> bool:
        """Whether there is such a file.

        Raises:
            OSError: the location can't be read.
        """
        return bool(self.files.isfile(self.at(path)))

    def remove_folders(self, paths: Iterable[str], *, emptied: bool) -> int:
        """Delete the folders that files at `paths` are in, with all that is in them; how many are gone.

        An attempt's files have a folder of their own. What can't be deleted is logged, and stays. `emptied`: folders
        above that have nothing in them now go too, which must not be while somebody may write there.
        """
        removed = 0
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
            try:
                self.files.rm(self.at(folder), recursive=True)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("a folder of files can't be deleted: %s: %s", folder, error)
                continue
            removed += 1
            if emptied:
                self._remove_if_empty(folder.rpartition("/")[0])
        return removed

    def _remove_if_empty(self, folder: str) -> None:
        """Delete a folder that has nothing in it, and those above likewise; an object store has no such thing."""
        while folder:
            try:
                self.files.rmdir(self.at(folder))
            except (OSError, NotImplementedError):
                return  # another attempt's files are in it
            folder = folder.rpartition("/")[0]

    def _relative(self, name: str) -> str:
        return name[len(self.root) :].lstrip("/")


def _written_at(about: dict[str, Any]) -> float:
    """When a file was last written by what its file system says of it; infinity where it says nothing."""
    for key in ("mtime", "LastModified", "last_modified", "updated"):
        value = about.get(key)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
    return float("inf")
