"""A child that computes: it reads a function and its arguments, answers with what comes of it, and reads the next.

Started by `app.compute.pool` as `python -P -m app.compute.child`: with a safe path, so that no file of the folder that
the service was started in is taken for a library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

from app.compute.frames import packed, read
from app.errors import FettleError

NICENESS = 5
"""What is computed is less urgent than what is answered at once."""
PR_SET_PDEATHSIG = 1
"""Linux's prctl(2): the signal that the kernel sends when the parent dies."""
OOM_SCORE_ADJ = 700
"""Where the machine's memory runs out, the kernel takes these first (proc(5))."""


def main() -> None:
    """Compute until the parent closes the pipe."""
    orders, answers = _pipes()
    _confine()
    answers.write(packed(("ready", None)))
    answers.flush()
    while True:
        try:
            function, arguments, memory_bytes = read(orders)
        except EOFError:
            return
        answers.write(_answer(function, arguments, memory_bytes))
        answers.flush()


def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Where orders come from and answers go to; what a library prints goes to the log in place of the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    orders = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return orders, answers


def _confine() -> None:
    # The terminal sends Ctrl-C to all processes: the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), encoding="ascii")
        except OSError:
            return  # a container may forbid it


def _answer(function: Any, arguments: tuple[Any, ...], memory_bytes: int) -> bytes:
    """What comes of the call: `("returned", value)`, `("raised", error)`, `("memory", None)` or `("broke", words)`."""
    try:
        _limit_memory(memory_bytes)
        return packed(("returned", function(*arguments)))
    except FettleError as error:
        return packed(("raised", error))
    except MemoryError:
        return packed(("memory", None))
    except Exception:  # noqa: BLE001 - told to the parent, which raises it
        import traceback

        return packed(("broke", traceback.format_exc()))
    finally:
        _limit_memory(None)


def _limit_memory(more: int | None) -> None:
    """Let this process have that many bytes more than now; as many as it likes where None is given.

    `RLIMIT_DATA` counts what may be written to, used or not: an allocator that reserves so ahead counts with all of it
    (getrlimit(2), Linux 4.7). Elsewhere nothing is limited but the time.
    """
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = hard if more is None else data_bytes() + more
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def data_bytes() -> int:
    """Bytes of this process that `RLIMIT_DATA` counts. Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmData:")[2].split(maxsplit=1)[0]) * 1024


if __name__ == "__main__":
    main()
