"""What a trainer may do wrong, done by a real one in the middle of an epoch.

A copy of this file, `sitecustomize.py` in a folder on a worker's PYTHONPATH, is imported by each trainer as it starts.
An epoch of the family `function` sleeps `delay_seconds`: a trial whose delay is one of `PLAN` commits that misdeed, as
often as the plan says, and is an honest one from then on. Nothing of the trainer itself is replaced.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PLAN = "plan.json"
LEAKED_BYTES = 300_000_000

leaked: list[bytearray] = []
_sleep = time.sleep


def arm(folder: Path, plan: dict[float, tuple[str, int]]) -> dict[str, str]:
    """The environment of a worker whose trainers commit misdeeds: by `delay_seconds`, their name and how often."""
    folder.mkdir()
    shutil.copy(__file__, folder / "sitecustomize.py")
    (folder / PLAN).write_text(json.dumps([[delay, name, times] for delay, (name, times) in plan.items()]))
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _pipe() -> int:
    """The descriptor of the pipe to the supervisor."""
    return int(sys.orig_argv[sys.orig_argv.index("worker.trainer") + 1])


def _frame(text: bytes) -> bytes:
    return struct.pack("!i", len(text)) + text


def _live_on() -> None:
    """Neither work nor end, not even when asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        _sleep(60)


def segfault() -> None:
    """End as native code does that writes where it may not."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


def killed() -> None:
    """End as the kernel ends who takes all memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    """End in silence with the status of success."""
    os._exit(0)


def stop() -> None:
    """Stand still: not even SIGTERM is seen."""
    os.kill(os.getpid(), signal.SIGSTOP)


def hang() -> None:
    """Never come back, and ignore SIGTERM."""
    _live_on()


def garbage() -> None:
    """Send a frame that is no JSON."""
    os.write(_pipe(), _frame(b"\x00\xff no message"))


def stranger() -> None:
    """Report an epoch of a member that is none."""
    report = {"member": 99, "epoch": 0, "metrics": {"value": 1.0}}
    os.write(
        _pipe(), _frame(json.dumps({"kind": "epoch_done", "stack": "x", "reports": [report], "width": 1}).encode())
    )


def absurd_length() -> None:
    """Announce a frame of an exabyte."""
    os.write(_pipe(), struct.pack("!iQ", -1, 1 << 60))


def half_a_frame() -> None:
    """Begin a frame, and die."""
    os.write(_pipe(), struct.pack("!i", 5000) + b'{"kind":')
    killed()


def stuck_in_a_frame() -> None:
    """Begin a frame, and live on without ending it."""
    os.write(_pipe(), struct.pack("!i", 5000) + b'{"kind":')
    _live_on()


def closed_pipe() -> None:
    """Close the pipe, and live on."""
    with socket.socket(fileno=os.dup(_pipe())) as pipe:
        pipe.shutdown(socket.SHUT_RDWR)
    _live_on()


def leak() -> None:
    """Keep memory that nobody needs; no more than once a trainer."""
    if not leaked:
        leaked.append(bytearray(b"x") * LEAKED_BYTES)


def all_memory() -> None:
    """Ask for more than there is, and be refused."""
    leaked.append(bytearray(1 << 50))


MISDEEDS: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        segfault, killed, leave, stop, hang, garbage, stranger, absurd_length, half_a_frame,
        stuck_in_a_frame, closed_pipe, leak, all_memory,
    )
}  # fmt: skip


def _commit_on_sleep(folder: Path) -> None:
    plan = {delay: (name, times) for delay, name, times in json.loads((folder / PLAN).read_text())}

    def sleep(seconds: float) -> None:
        name, times = plan.get(seconds, ("", 0))
        if threading.current_thread() is threading.main_thread():
            for time_of in range(times):
                try:  # once for all trainers, however many die of it
                    (folder / f"{name}-{time_of}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                MISDEEDS[name]()
                break
        _sleep(seconds)

    time.sleep = sleep


if __name__ == "sitecustomize" and "worker.trainer" in sys.orig_argv:
    _commit_on_sleep(Path(__file__).parent)
