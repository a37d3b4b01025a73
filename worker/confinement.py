"""What a trainer gives up as it starts, before it imports anything that is not its own.

No sandbox: it runs as the worker's user, and may read what that user may. It is kept from filling the disk with one
file or with core dumps, from gaining rights (on a CPU), and from outliving its worker, and the kernel takes it first
where memory runs out. `RLIMIT_AS` and `RLIMIT_DATA` count address space that CUDA and TensorFlow reserve and never
touch, so memory is watched by the supervisor; `RLIMIT_NPROC` counts all of the user's processes, so threads are not
limited.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
"""Linux's prctl options (prctl(2)): the signal at the parent's death; no rights from set-user-id programs."""
OOM_SCORE_ADJ = 500
"""What is added to the trainer's badness, of 1,000 for all memory: it goes before its worker (proc(5))."""
MAX_FILE_BYTES = 64 * 2**30
"""The longest file that a trainer may write: far beyond a model's, and less than fills most disks."""
MAX_OPEN_FILES = 4_096
UMASK = 0o077


def confine(device: str) -> None:
    """Give up what a trainer on that device (its label) doesn't need. What a system doesn't know is left as it is."""
    os.umask(UMASK)
    if sys.platform != "linux":
        return
    import resource

    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)  # Python ignores SIGXFSZ: a longer write is an OSError
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    with suppress(OSError):
        before = int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii"))
        Path("/proc/self/oom_score_adj").write_text(str(max(before, OOM_SCORE_ADJ)), encoding="ascii")
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if device == "cpu":  # CUDA starts nvidia-modprobe, which is set-user-id, where a device's file is missing
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # in mid-epoch too; elsewhere the end of the pipe is what is seen


def _lower(limit: int, most: int) -> None:
    """Set a limit to `most`, for good, unless it is lower already."""
    import resource

    soft, hard = resource.getrlimit(limit)
    unlimited = resource.RLIM_INFINITY
    lowest = [most, *(value for value in (soft, hard) if value != unlimited)]
    hardest = [most, *([hard] if hard != unlimited else [])]
    resource.setrlimit(limit, (min(lowest), min(hardest)))
