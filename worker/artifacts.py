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
from worker.protocol import KeptModel

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

    def publish(self, study: str, number: int, attempt: int, token: str, kept: KeptModel) -> ArtifactPointer:
        """Copy a written model below the artifact location; the pointer to it.

        Raises:
            OSError: the location can't be written.
        """
        written = str(kept.path)
        path = f"{study}/{number:06d}/{attempt}-{token[:12]}/{MODEL_NAME}"
        target = f"{self._root}/{path}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(written, target)
        Path(written).unlink()
        return ArtifactPointer(MODEL_NAME, path, MODEL_MEDIA_TYPE, kept.size_bytes, kept.metadata)

    def remove(self, paths: Sequence[str]) -> None:
        """Delete files that nothing points to any more. One that can't be deleted stays an orphan."""
        for path in paths:
            try:
                self._files.rm(f"{self._root}/{path.rpartition('/')[0]}", recursive=True)
            except OSError as error:
                log.warning("artifact_not_removed", path=path, error=str(error))

    def close(self) -> None:
        """Delete the scratch folder."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._scratch)
