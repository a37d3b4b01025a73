"""Folders for what a process writes on its way: deleted with it, or by the next one where it was killed.

A folder is locked (`flock`) for as long as its maker has it open: the kernel lets go of the lock with the process,
however it ended. So a lock that can be had says that nobody works there any more; ids of processes would not, in
containers that share a disk. Locks on other machines' disks may not work: what can't be locked is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX, SUFFIX = "fettle-", ".locked"
"""How the folders are called. Those of releases that locked none have another ending."""


class Scratch:
    """A new folder at `path`, in the system's place for temporary files or `within` another. `close` it, or use `with`.

    Raises:
        OSError: there is no room, or no right to write.
    """

    def __init__(self, kind: str, within: Path | None = None) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-", suffix=SUFFIX, dir=within))
            with contextlib.suppress(FileNotFoundError):
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                if self._is_ours():
                    return
                os.close(self._descriptor)

    def _is_ours(self) -> bool:
        """Lock the folder; False where a sweep came between making and locking it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks there: then nobody sweeps either
        return self.path.exists()

    def close(self) -> None:
        """Delete the folder with all that is in it; safe to repeat."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def sweep(within: Path | None = None) -> int:
    """Delete the scratch folders whose processes are gone, in the same place as `Scratch`; how many there were."""
    swept = 0
    for path in Path(within or tempfile.gettempdir()).glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid != os.getuid():
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                swept += 1
            finally:
                os.close(descriptor)
    return swept
