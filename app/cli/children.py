"""Worker processes as children of this one: started, restarted where they die, drained at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import typer

POLL_S = 0.2
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
FINAL_CODES = frozenset({0, 2})
"""A worker ends with 0 where it got a signal, with 2 where settings or schema are wrong: neither is started again."""
DRAINED_CODE = 75
"""A worker ends with it where it was drained over HTTP: others count on its place, so another takes it at once."""
HURRY_S = 3.0
"""Time for a worker to give its trials back at once, before it is killed."""
STEADY_S = 60.0
"""A worker that lived this long died of something new: its backoff starts afresh."""


@dataclass(slots=True)
class _Slot:
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    backoff_s: float = FIRST_BACKOFF_S
    due_at: float = 0.0
    retired: bool = False


class Children:
    """`count` processes of one command, each in a process group of its own, so that a Ctrl-C reaches them through us.

    One that dies is started again after a growing pause, unless it ended on purpose (`FINAL_CODES`), and one that was
    drained (`DRAINED_CODE`) without a pause.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], count: int, *, grace_s: float) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._slots = [_Slot() for _ in range(count)]
        self._grace_s = grace_s
        self._draining = threading.Event()
        self._hurried = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="fettle-children", daemon=True)

    def start(self) -> None:
        """Start all of them, and watch them from now on."""
        if self._slots:
            self._watcher.start()

    def drain(self) -> None:
        """Ask all of them to end; returns at once. Safe in a signal handler."""
        self._draining.set()

    def hurry(self) -> None:
        """Kill what is still there. Safe in a signal handler."""
        self._hurried.set()
        self._draining.set()

    def stop(self) -> None:
        """Return once all are gone: those that outlast their grace are killed with everything they started."""
        self._draining.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def _watch(self) -> None:
        while not self._draining.is_set():
            for slot in self._slots:
                self._tend(slot)
            self._draining.wait(POLL_S)
        self._terminate()
        self._wait_gone(self._grace_s, unless=self._hurried)
        if self._running():
            self._terminate()  # a worker takes the second signal as: give everything back now
            self._wait_gone(HURRY_S)
        for process in self._running():
            _kill_group(process)

    def _terminate(self) -> None:
        for process in self._running():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    def _wait_gone(self, timeout_s: float, unless: threading.Event | None = None) -> None:
        deadline = time.monotonic() + timeout_s
        while self._running() and time.monotonic() < deadline and not (unless and unless.is_set()):
            time.sleep(POLL_S)

    def _running(self) -> list[subprocess.Popen[bytes]]:
        return [slot.process for slot in self._slots if slot.process is not None and slot.process.poll() is None]

    def _tend(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.retired:
            return
        if slot.process is not None:
            code = slot.process.poll()
            if code is None:
                return
            _kill_group(slot.process)
            slot.process = None
            if code in FINAL_CODES:
                slot.retired = True
                if code != 0:
                    typer.echo("fettle: a worker can't run here (see above) and is not started again", err=True)
                return
            if code == DRAINED_CODE:
                typer.echo("fettle: a worker was drained; starting another in its place", err=True)
                slot.backoff_s = FIRST_BACKOFF_S
                return
            if now - slot.started_at > STEADY_S:
                slot.backoff_s = FIRST_BACKOFF_S
            typer.echo(f"fettle: a worker ended with {code}; starting another in {slot.backoff_s:g} s", err=True)
            slot.due_at = now + slot.backoff_s
            slot.backoff_s = min(slot.backoff_s * 2, LONGEST_BACKOFF_S)
        if now >= slot.due_at:
            slot.started_at = now
            slot.process = subprocess.Popen(  # noqa: S603 - our own interpreter
                self._command, env=self._environment, stdin=subprocess.DEVNULL, process_group=0
            )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a worker and what it started, such as a trainer that it left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
