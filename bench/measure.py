"""What a process and all of its descendants use: CPU seconds and resident memory, sampled from outside.

Children that outlive their parents stay in sight because the bench adopts them (`adopt_orphans`), so that a peer which
starts daemons is counted whole, as Fettle's API, supervisor and trainer are.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

INTERVAL_S = 0.25
"""Between two samples. A process that ends takes along what it used since the last one."""
PR_SET_CHILD_SUBREAPER = 36
"""Linux's prctl option: orphaned descendants get this process for a parent (prctl(2))."""

Identity = tuple[int, float]


def adopt_orphans() -> None:
    """Let descendants whose parent ends become children of this process. Nothing happens elsewhere than on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def processes(root: int) -> list[psutil.Process]:
    """The process `root` and its descendants; none where it has ended."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass
class Usage:
    """What the tree of `root` has used in a window: `cpu_s` seconds of CPU, `peak_mb` the greatest sum of RSS.

    Pages that processes share are counted in each of them.
    """

    root: int
    peak_mb: float = 0.0
    _before: dict[Identity, float] = field(default_factory=dict)
    _last: dict[Identity, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, from the start of the window to the last sample."""
        return sum(self._last.values()) - sum(self._before.values())

    def start(self) -> Usage:
        """The window opens."""
        self._sample()
        self._before = dict(self._last)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """The window closes; call it while the processes still live."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        resident = 0
        for process in processes(self.root):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    resident += process.memory_info().rss
                    self._last[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        self.peak_mb = max(self.peak_mb, resident / 1e6)


@contextmanager
def usage_of(root: int) -> Iterator[Usage]:
    """What the tree of `root` uses while the block runs."""
    usage = Usage(root).start()
    try:
        yield usage
    finally:
        usage.stop()
