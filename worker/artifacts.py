"""Files of attempts: written by the trainer to a scratch folder, copied below the artifact location by the supervisor.

Each attempt has a path of its own, so that a zombie overwrites nothing; a path means something once a fenced write
points to it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import fsspec
import structlog
from fsspec.implementations.local import LocalFileSystem

from app.domain.trial import ArtifactPointer, CheckpointPointer
from app.scratch import Scratch
from worker.trainer.protocol import KeptFile, KeptModel, KeptSnapshot
from worker.trainer.snapshots import snapshot_key

MODEL_NAME = "model.keras"
SNAPSHOT_NAME, SNAPSHOT_SUFFIX = "state.npz", ".npz"
MODEL_MEDIA_TYPE = "application/vnd.keras"

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What files of a trial may be called."""

log = structlog.get_logger(__name__)


class ArtifactWriter:
    """The worker's way to the artifact location, an fsspec URL."""

    def __init__(self, url: str) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._folder = Scratch("worker")
        self._scratch = self._folder.path
        self._snapshots = 0

    def scratch(self, token: str) -> str:
        """A path on this machine where the trainer may write the model of the attempt that holds `token`."""
        return str(self._scratch / f"{token}.keras")

    def publish(
        self, study: str, number: int, attempt: int, token: str, kept: KeptModel
    ) -> tuple[ArtifactPointer, ...]:
        """Copy a written model, and the files that came with it, below the artifact location; the pointers to them.

        All of them or none: of what can't be copied nothing stays, here nor there.

        Raises:
            OSError: the location can't be written.
        """
        folder = f"{study}/{number:06d}/{attempt}-{token[:12]}"
        model = KeptFile(
            name=MODEL_NAME,
            path=str(kept.path),
            media_type=MODEL_MEDIA_TYPE,
            size_bytes=kept.size_bytes,
            details=kept.metadata,
        )
        files = (model, *kept.files)
        self._copy(folder, {file.path: file.name for file in files})
        return tuple(
            ArtifactPointer(file.name, f"{folder}/{file.name}", file.media_type, file.size_bytes, file.details)
            for file in files
        )

    def _copy(self, folder: str, names: Mapping[str, str]) -> None:
        """Copy written files into a folder below the location, by their names there; the written ones are deleted.

        Where one can't be copied the folder goes, too: on a full disk half a file is in everybody's way.

        Raises:
            OSError: the location can't be written.
        """
        target = f"{self._root}/{folder}"
        for source, name in names.items():
            self._check_written(source, name)
        try:
            self._files.makedirs(target, exist_ok=True)
            for source, name in names.items():
                self._files.put_file(source, f"{target}/{name}")
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm(target, recursive=True)
            raise
        finally:
            for source in names:
                Path(source).unlink(missing_ok=True)

    def _check_written(self, source: str, name: str) -> None:
        """Return where a trainer may have a file published: one of the scratch folder, under a plain name.

        This process has the store's credentials and may read more than what a trainer was asked to write.

        Raises:
            OSError: it is another.
        """
        path = Path(source)
        if path.parent != self._scratch or path.is_symlink() or not path.is_file() or not FILE_NAME.fullmatch(name):
            raise OSError(f"Expected a file that the trainer was asked to write. Received: {name[:100]!r}")

    def scratch_snapshot(self, token: str) -> str:
        """A path on this machine, another each time, where the trainer may write a state of the attempt."""
        self._snapshots += 1
        return str(self._scratch / f"{token}-{self._snapshots}{SNAPSHOT_SUFFIX}")

    def publish_snapshot(self, key: str, kept: KeptSnapshot) -> CheckpointPointer:
        """Copy a written snapshot below the artifact location, into a folder of its own, by its key; the pointer to it.

        Raises:
            OSError: the location can't be written.
        """
        folder = snapshot_key(key, kept.epochs)
        self._copy(folder, {kept.path: SNAPSHOT_NAME})
        return CheckpointPointer(f"{folder}/{SNAPSHOT_NAME}", kept.epochs, kept.size_bytes)

    def fetch(self, path: str) -> str:
        """Where a file below the artifact location can be read on this machine: a copy, unless it lies there.

        Raises:
            OSError: there is none, or the location can't be read.
        """
        source = f"{self._root}/{path}"
        if isinstance(self._files, LocalFileSystem):
            if not Path(source).is_file():
                raise FileNotFoundError(f"Expected a file at {path}. Received none: it was removed, or lies elsewhere.")
            return source
        self._snapshots += 1
        copy = self._scratch / f"fetched-{self._snapshots}{SNAPSHOT_SUFFIX}"
        self._files.get_file(source, str(copy))
        return str(copy)

    def let_go(self, copy: str) -> None:
        """Delete what `fetch` copied, or a written file that nobody wants; files of the location itself stay."""
        if Path(copy).parent == self._scratch:
            Path(copy).unlink(missing_ok=True)

    def remove(self, paths: Sequence[str]) -> None:
        """Delete files that nothing points to any more, with their folders: an attempt's files go together.

        What can't be deleted stays an orphan.
        """
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
            try:
                self._files.rm(f"{self._root}/{folder}", recursive=True)
            except OSError as error:
                log.warning("artifact_not_removed", path=folder, error=str(error))

    def clear_scratch(self) -> None:
        """Delete what a trainer that was lost had written, or begun to write: nobody else writes there."""
        for path in self._scratch.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the scratch folder."""
        self._folder.close()
