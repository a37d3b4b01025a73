"""Whether XLA pays for a program: compiled on the idle core while the program trains, then measured against it.

XLA makes small dense networks several times faster on a CPU and convolutions slower, and compiling costs seconds
(64-64-10 on digits at batch size 32: 31.7 to 9.3 ms an epoch, 2.6 s to compile). So a program starts without it. Once
it has trained for a while, a *twin* with variables of its own is compiled on a second thread and timed on epochs in
which nobody is active: the arithmetic is the same, and nothing is shared. The faster one serves the stacks to come.
"""

from __future__ import annotations

import threading
import time
from weakref import WeakKeyDictionary, WeakSet

from worker.training.program import Program
from worker.training.signature import Signature

HOT_S = 0.4
"""A program that has trained for so long will probably go on: compiling starts to pay."""
TIMED_EPOCHS = 3
"""Epochs of a twin that are timed, the quickest counts: the other thread disturbs."""
WORTHWHILE = 0.9
"""The share of the present time that a twin may take at most to replace its program."""


class Twin(threading.Thread):
    """Compiles and times the XLA version of a program: read `program` and `epoch_s` once the thread has ended."""

    def __init__(self, signature: Signature, width: int) -> None:
        super().__init__(name="xla-twin", daemon=True)
        self._signature = signature
        self._width = width
        self.program: Program | None = None
        self.epoch_s = float("inf")

    def run(self) -> None:
        """Build, compile, time. A failure leaves `program` None: the original goes on."""
        try:
            program = Program(self._signature, self._width, jit_compile=True)
            for epoch in range(1 + TIMED_EPOCHS):
                started = time.perf_counter()
                program.run_epoch([])
                if epoch:
                    self.epoch_s = min(self.epoch_s, time.perf_counter() - started)
        except Exception:  # noqa: BLE001 - XLA can't compile every graph, and memory may be short: no trial's fault
            return
        self.program = program


class Accelerator:
    """Decides for each program of a cache; one is compiled at a time. Not thread-safe."""

    def __init__(self) -> None:
        self._twins: WeakKeyDictionary[Program, Twin] = WeakKeyDictionary()
        self._decided: WeakSet[Program] = WeakSet()

    def considered(self, program: Program) -> Program:
        """The program to train with from here on: `program`, or its twin where that was found to be faster."""
        twin = self._twins.get(program)
        if twin is not None and not twin.is_alive():
            del self._twins[program]
            if twin.program is not None and twin.epoch_s < WORTHWHILE * program.epoch_s:
                self._decided.add(twin.program)
                return twin.program
        elif twin is None and program not in self._decided and program.trained_s > HOT_S and not self._is_busy():
            self._decided.add(program)
            self._twins[program] = Twin(program.signature, program.width)
            self._twins[program].start()
        return program

    def _is_busy(self) -> bool:
        return any(twin.is_alive() for twin in self._twins.values())
