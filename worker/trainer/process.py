"""The trainer as its supervisor sees it: a spawned child on a pipe that may die without harm.

It is started by a fresh interpreter (TensorFlow is not fork-safe) with a cleaned environment: no `FETTLE_*` variable,
so no database credentials, reaches the code that runs users' models.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from app import start
from app.domain.trial import FailureReason
from worker.device import Device
from worker.pool import Signature
from worker.trainer.channel import Channel, ChannelBroken
from worker.trainer.protocol import Answer, Faulted, Kept, Message, Ready, Shutdown, from_trainer

TERM_GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL: a trainer has nothing to save."""
WEIGH_S = 0.05
"""How often the memory of a trainer is looked at while it trains."""
KEPT_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "KERAS_HOME",
)  # fmt: skip
KEPT_PREFIXES = ("TF_", "XLA_", "OMP_", "MKL_", "NVIDIA_", "CUDA_")


def clean_environment(device: Device) -> dict[str, str]:
    """The environment of a trainer on `device`: what Python and TensorFlow need, nothing of the service's."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT_VARIABLES or k.startswith(KEPT_PREFIXES)}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": kept.get("TF_CPP_MIN_LOG_LEVEL", "2"), "KERAS_BACKEND": "tensorflow"}
    return kept | quiet | device.environment


class TrainerLost(Exception):
    """The trainer died, or was killed, in the middle of a stack: its message says how."""

    code, reason = "TRAINER_HUNG", FailureReason.EXCEPTION


class TrainerCrashed(TrainerLost):
    """The trainer died by itself, or broke its pipe."""

    code = "TRAINER_CRASHED"


class TrainerTooLarge(TrainerLost):
    """The trainer was killed since it had grown too large."""

    code, reason = "TRAINER_TOO_LARGE", FailureReason.OUT_OF_MEMORY


class Trainer:
    """One running trainer. `ready` is its first message, once it came.

    `timings` is the file in which trainers remember how fast their programs are. One that stands still in the middle
    of a message for `hang_timeout_s` seconds has broken its pipe. `prepared` are signatures of programs that it has, or
    was told to compile.
    """

    def __init__(self, device: Device, families: Sequence[str], timings: Path, hang_timeout_s: float) -> None:
        ours, theirs = multiprocessing.Pipe(duplex=True)
        try:
            arguments = [str(theirs.fileno()), device.label, str(timings.absolute()), *families]
            self._process = subprocess.Popen(  # noqa: S603
                start.command("worker.trainer", *arguments),
                env=clean_environment(device),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to handle
            )
        finally:
            theirs.close()
        self._connection: Connection = ours
        self._channel: Channel[Answer] = Channel(ours, from_trainer, hang_timeout_s)
        self._memory = psutil.Process(self._process.pid)
        self._weighed_at = 0.0
        self.ready: Ready | None = None
        self.trained = 0
        self.prepared: set[Signature] = set()
        self.fault: str | None = None
        """What the framework failed by in it, once it did: it is not used again."""
        self.late_files: list[str] = []
        """Checkpoints that were written after the end of their stack: nobody wants them."""

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send `message`; raises `ChannelBroken` where the child is gone."""
        self._channel.send(message)

    def receive(self, timeout_s: float) -> Answer | None:
        """The next message, or None where none comes within `timeout_s`; raises `ChannelBroken`."""
        if not self._channel.poll(timeout_s):
            return None
        message = self._channel.receive()
        if isinstance(message, Ready):
            self.ready = message
        elif isinstance(message, Faulted):
            self.fault = message.problem
        return message

    def families(self) -> list[str]:
        """The families that an idle trainer can train by now; reads what it has announced meanwhile."""
        with contextlib.suppress(ChannelBroken):
            while (message := self.receive(0.0)) is not None:
                if isinstance(message, Kept):
                    self.late_files += [snapshot.path for snapshot in message.snapshots]
        return [] if self.ready is None else self.ready.families

    def is_warm(self, families: Sequence[str]) -> bool:
        """Whether it announced all of `families`."""
        return self.ready is not None and set(families) <= set(self.ready.families)

    def died(self) -> bool:
        """Whether the child has ended."""
        return self._process.poll() is not None

    def memory_mb(self) -> float:
        """Resident memory in MB; 0 where the child is gone."""
        try:
            return float(self._memory.memory_info().rss) / 1e6
        except psutil.Error:
            return 0.0

    def check_memory(self, most_mb: float) -> None:
        """Kill the trainer where it holds more, before the kernel takes a process of its own choice.

        Raises:
            TrainerTooLarge: it did.
        """
        if time.monotonic() - self._weighed_at < WEIGH_S:
            return
        self._weighed_at, held_mb = time.monotonic(), self.memory_mb()
        if held_mb > most_mb:
            self.kill()
            raise TrainerTooLarge(
                f"Expected a trainer of at most {most_mb:,.0f} MB (FETTLE_TRAINER_KILL_MEMORY_MB). Received one of "
                f"{held_mb:,.0f} MB, which was killed."
            )

    def stop(self) -> None:
        """Ask an idle trainer to leave, and see to it that it does."""
        with contextlib.suppress(ChannelBroken):
            self.send(Shutdown())
        self._end(first=None)

    def kill(self) -> None:
        """End the trainer now, whatever it does: TERM, then KILL."""
        self._end(first=signal.SIGTERM)

    def _end(self, first: signal.Signals | None) -> None:
        if first is not None:
            self._process.send_signal(first)
        try:
            self._process.wait(TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._channel.close()

    def death(self) -> str:
        """How the child ended, in words; kills it where it only broke the pipe."""
        try:
            code = self._process.wait(TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "The trainer broke its pipe and was killed."
        self._channel.close()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory, perhaps)" if name == "SIGKILL" else ""
            return f"The trainer was ended by {name}{hint}."
        return f"The trainer exited with status {code}."
