"""Data that users brought, on this machine: fetched once, verified, and handed to trainers as a path.

Trainers have no credentials of the store. Files lie below the data directory by the hash of their content, so that
workers of one machine share them; those that were not used for longest go once all of them take too much.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from sqlalchemy.exc import DBAPIError

from app.compute import Bounds, run_alone
from app.data.files import Damaged, DatasetFiles
from app.data.keeping import Kept, Naming, keep
from app.data.limits import READING_S, data_limits
from app.data.normal import FORM, hash_of
from app.data.reading import Reading
from app.data.roots import TooLarge, locate, roots_of
from app.domain.study import DatasetSpec
from app.errors import InvalidDataset, TooExpensive, Unready
from app.scratch import Scratch, sweep
from app.settings import Settings
from app.store import datasets
from app.store.engine import Database
from app.store.tables import StoredDataset

FOLDER = "dataset-cache"
PATIENCE_S = 60.0
"""How long a store that can't be reached is tried again before trials fail: longer than a restart."""
MISSING_PATIENCE_S = 5.0
"""The same for a file that isn't there: one that is moved aside for a moment comes back at once."""
RETRY_S = 0.5

log = structlog.get_logger(__name__)


class Unusable(Exception):
    """Data that no waiting will bring: the message says why."""


@dataclass(frozen=True, slots=True)
class Local:
    """What a trainer is told of a study's data: the `path` of an upload's file, or the `problem` that there is none.

    Data sets that come along have neither.
    """

    path: str | None = None
    problem: str | None = None


class DatasetCache:
    """The uploads of one worker. Not thread-safe."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._folder = settings.data_dir.absolute() / FOLDER
        self._ready: dict[str, Path] = {}

    def sweep(self) -> int:
        """Delete what workers of this machine left half-written when they were killed; how many folders there were."""
        return sweep(self._folder)

    def known(self, spec: DatasetSpec | None) -> Local | None:
        """What a trainer is told, where that is known without waiting."""
        if spec is None or spec.id is None:
            return Local()
        path = self._ready.get(spec.id)
        return Local(path=str(path)) if path is not None and path.exists() else None

    def local(self, spec: DatasetSpec | None, should_stop: Callable[[], bool]) -> Local | None:
        """What a trainer is told; fetches the file, and waits for a store that is away. None where it was to stop."""
        found = self.known(spec)
        if found is not None or spec is None or spec.id is None:
            return found
        started = time.monotonic()
        while not should_stop():
            try:
                path = self._fetched(spec.id)
            except Unusable as error:
                return Local(problem=str(error))
            except (OSError, DBAPIError, Unready) as error:
                is_missing = FileNotFoundError in {type(error), type(error.__cause__)}
                patience_s = MISSING_PATIENCE_S if is_missing else PATIENCE_S
                if time.monotonic() - started > patience_s:
                    return Local(problem=f"{spec.name!r} could not be fetched for {patience_s:g} s: {_words(error)}")
                log.warning("dataset_not_fetched", dataset=spec.name, error=_words(error))
                time.sleep(RETRY_S)
            else:
                self._ready[spec.id] = path
                with suppress(OSError):
                    path.touch()
                    self._make_room(path)
                return Local(path=str(path))
        return None

    def _fetched(self, public_id: str) -> Path:
        with self._database.read() as session:
            row = datasets.find_by_id(session, public_id)
        if row is None:
            raise Unusable(f"Expected the data set {public_id}. Received none: it was deleted.")
        if row.uri is not None:
            return self._read_again(row)
        path = self._folder / f"{row.object_hash}.npz"
        if not path.exists() or hash_of(path) != row.object_hash:
            try:
                DatasetFiles(self._settings.resolved_dataset_url).fetch(row.object_hash, path)
            except Damaged as error:
                raise Unusable(f"The file of {row.name!r} is damaged. {error}") from error
        return path

    def _read_again(self, row: StoredDataset) -> Path:
        """Read a file that is registered by its URI, once it was seen to be the same as then; where it is kept."""
        known = self._folder / f"{row.object_hash}.npz"
        with Scratch("dataset") as scratch:
            source = scratch.path / "source"
            try:
                named = locate(str(row.uri), roots_of(self._settings.dataset_roots))
                digest = named.copy(source, self._settings.max_upload_bytes)
                if digest != row.content_hash:
                    raise Unusable(
                        f"Expected {row.uri} as it was when {row.name!r} was registered, with the SHA-256 "
                        f"{row.content_hash}. Received a file that was changed since: register it again."
                    )
                reading, limits = Reading.model_validate_json(row.reading), data_limits(self._settings)
                if known.exists() and hash_of(known) == row.object_hash:
                    return known
                part, naming = scratch.path / "kept.npz", Naming(row.name, "", "reference")
                bounds = Bounds(READING_S, limits.memory_bytes)
                kept = run_alone(keep, source, reading, limits, naming, part, bounds=bounds)
                if not _is_the_same(kept, row):
                    raise Unusable(f"This worker reads {row.uri} otherwise than the API did. Do their versions differ?")
                self._folder.mkdir(parents=True, exist_ok=True)
                path = self._folder / f"{kept.object_hash}.npz"
                _move(part, path)
            except (InvalidDataset, TooLarge, TooExpensive) as error:
                raise Unusable(f"{row.name!r} can't be read by this worker: {error}") from error
        return path

    def _make_room(self, used: Path) -> None:
        """Delete the files that were not used for longest, while all together take more than the setting allows."""
        files = sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in files)
        for path in files:
            if total <= self._settings.dataset_cache_bytes or path == used:
                return
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


def _is_the_same(kept: Kept, row: StoredDataset) -> bool:
    """Whether what a worker reads is what the API read: by the hash of what is kept of it.

    An API of before kept the same numbers in another form, whose hash is another: then by all that is said of them.
    """
    known = datasets.dataset_of(row)
    if known.form == FORM:
        return kept.object_hash == row.object_hash
    read = replace(known, description="", id=None, form=FORM)
    return read == replace(kept.dataset, description="", id=None, form=FORM)


def _move(source: Path, target: Path) -> None:
    """Move a file between file systems, whole or not at all."""
    with Scratch("part", within=target.parent) as beside:
        shutil.copyfile(source, beside.path / target.name).replace(target)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
