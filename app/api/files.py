"""Reading files below the artifact location."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import PurePosixPath

from app.errors import NotFound

CHUNK_BYTES = 2**20

log = logging.getLogger(__name__)


def open_artifact(base_url: str, path: str) -> tuple[int, Iterator[bytes]]:
    """The size of the file at `path` below the location `base_url`, in bytes, and its content in chunks.

    Raises:
        NotFound: there is no such file, or the path leads elsewhere.
    """
    from fsspec.core import url_to_fs

    parts = PurePosixPath(path).parts
    if not parts or path.startswith(("/", "\\")) or "://" in path or ".." in parts:
        raise _gone()
    filesystem, root = url_to_fs(base_url)
    try:
        file = filesystem.open("/".join([root.rstrip("/"), *parts]), "rb")
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise _gone() from None
    return int(file.size), _chunks(file)


def remove_study_files(base_url: str, study_id: str) -> None:
    """Delete the files of a study's trials. What can't be deleted stays: nothing points to it any more."""
    from fsspec.core import url_to_fs

    filesystem, root = url_to_fs(base_url)
    try:
        filesystem.rm(f"{root.rstrip('/')}/{study_id}", recursive=True)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("files of the deleted study %s remain: %s", study_id, error)


def _chunks(file: object) -> Iterator[bytes]:
    with file as opened:  # type: ignore[attr-defined]
        while chunk := opened.read(CHUNK_BYTES):
            yield chunk


def _gone() -> NotFound:
    return NotFound(
        "Expected the artifact's file. Received none: it was removed, or lies elsewhere.", code="ARTIFACT_NOT_FOUND"
    )
