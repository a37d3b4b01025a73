"""The compiled programs that a trainer keeps."""

from __future__ import annotations

from collections import OrderedDict

from worker.training.acceleration import Accelerator
from worker.training.program import Program
from worker.training.signature import Signature

MAX_PROGRAMS = 32
"""Programs kept. One of a small network takes about 10 MB, most of it the graph."""
MAX_IDLE_SHARE = 0.5
"""A program that is wider than a stack is used for it as long as no larger share of its slots stays empty."""


class ProgramCache:
    """Programs by signature and width; with `accelerate`, their XLA twins where those are faster. Not thread-safe."""

    def __init__(self, max_programs: int = MAX_PROGRAMS, *, accelerate: bool = False) -> None:
        self._programs: OrderedDict[tuple[Signature, int], Program] = OrderedDict()
        self._max_programs = max_programs
        self._accelerator = Accelerator() if accelerate else None
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._programs)

    def program(self, signature: Signature, members: int) -> Program:
        """A program with at least `members` slots: a kept one where it fits well, else a new one of just that width.

        Raises:
            Refused: the data set or the network is impossible.
        """
        fitting = [
            width
            for known, width in self._programs
            if known == signature and members <= width and width - members <= MAX_IDLE_SHARE * width
        ]
        if fitting:
            self.hits += 1
            key = (signature, min(fitting))
            self._programs.move_to_end(key)
            if self._accelerator is not None:
                self._programs[key] = self._accelerator.considered(self._programs[key])
            return self._programs[key]
        self.misses += 1
        program = Program(signature, members)
        self._programs[signature, members] = program
        while len(self._programs) > self._max_programs:
            self._programs.popitem(last=False)
        return program

    def clear(self) -> None:
        """Drop all programs, such as after the device ran out of memory."""
        self._programs.clear()
