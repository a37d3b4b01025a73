"""Files of attempts: written by the trainer to a scratch folder, copied below the artifact location by the supervisor.

Each attempt has a path of its own, so that a zombie overwrites nothing; a path means something once a fenced write
points to it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fsspec
import structlog

from app.domain.trial import ArtifactPointer
from worker.protocol import KeptFile, KeptModel

MODEL_NAME = "model.keras"
MODEL_MEDIA_TYPE = "application/vnd.keras"

log = structlog.get_logger(__name__)


class ArtifactWriter:
    """The worker's way to the artifact location, an fsspec URL."""

    def __init__(self, url: str) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._scratch = Path(tempfile.mkdtemp(prefix="fettle-worker-"))

    def scratch(self, token: str) -> str:
        """A path on this machine where the trainer may write the model of the attempt that holds `token`."""
        return str(self._scratch / f"{token}.keras")

    def publish(
        self, study: str, number: int, attempt: int, token: str, kept: KeptModel
    ) -> tuple[ArtifactPointer, ...]:
        """Copy a written model, and the files that came with it, below the artifact location; the pointers to them.

        Raises:
            OSError: the location can't be written.
        """
        folder = f"{study}/{number:06d}/{attempt}-{token[:12]}"
        self._files.makedirs(f"{self._root}/{folder}", exist_ok=True)
        model = KeptFile(
            name=MODEL_NAME,
            path=kept.path,
            media_type=MODEL_MEDIA_TYPE,
            size_bytes=kept.size_bytes,
            details=kept.metadata,
        )
        return tuple(self._published(file, folder) for file in (model, *kept.files))

    def _published(self, file: KeptFile, folder: str) -> ArtifactPointer:
        path = f"{folder}/{file.name}"
        self._files.put_file(file.path, f"{self._root}/{path}")
        Path(file.path).unlink()
        return ArtifactPointer(file.name, path, file.media_type, file.size_bytes, file.details)

    def remove(self, paths: Sequence[str]) -> None:
        """Delete files that nothing points to any more, with their folders: an attempt's files go together.

        What can't be deleted stays an orphan.
        """
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
            try:
                self._files.rm(f"{self._root}/{folder}", recursive=True)
            except OSError as error:
                log.warning("artifact_not_removed", path=folder, error=str(error))

    def close(self) -> None:
        """Delete the scratch folder."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._scratch)
