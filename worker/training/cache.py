"""The compiled programs that a trainer keeps, and the choice among a signature's variants.

The first program of a signature is the variant that was measured to be the fastest before, on this device; else a
guess, in which XLA's longer compiling counts: it pays where many trials are to come. Programs that trials to come will
need are compiled on a second thread while others train. A program that has trained for so long that trying another
variant costs little beside it is measured against that variant, both on the second thread and in turn; where the other
one is faster, the members move over at their next epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from worker.training.faults import Faults
from worker.training.program import Program, Variant
from worker.training.signature import Signature
from worker.training.variants import Timings, candidates, fits_memory, fixed_variant, member_epoch_s

MAX_PROGRAMS = 32
"""Programs kept. One of a small network takes about 10 MB, most of it the graph."""
MANY_TRIALS = 24
"""From so many trials on XLA is compiled at once (64-64-10 on digits: 1.1 s more to compile, 28 ms less a trial)."""
PROMISING_SHARE, OTHER_SHARE = 1.0, 0.1
"""What trying a variant may cost, compiling included, of the time that its signature has trained: one that is expected
to be the fastest, and any other. A program that has trained for long will probably go on for as long again."""
TIMED_EPOCHS = 3
"""Epochs of each of two programs that are timed, the quickest counts: the other thread disturbs both."""
WORTHWHILE = 0.9
"""The share of the present time that another variant may take at most to be taken instead."""


class ProgramCache:
    """Programs by signature and variant. For one thread; `background` False compiles and measures nothing beside it."""

    def __init__(
        self, timings: Path | None = None, *, max_programs: int = MAX_PROGRAMS, background: bool = True
    ) -> None:
        self._programs: OrderedDict[tuple[Signature, Variant], Program] = OrderedDict()
        self._max_programs = max_programs
        self._timings = Timings(timings)
        self._second = ThreadPoolExecutor(1, "compile") if background else None
        self._jobs: list[Future[None]] = []
        self._trial: Future[tuple[Program, dict[Variant, float]]] | None = None
        self._failed: set[tuple[Signature, Variant]] = set()
        self._tried: dict[Signature, set[Variant]] = {}
        self.memory_mb: float | None = None
        """What the device has, where that is known."""
        self.faults = Faults()
        """What the framework failed by in a program, kept or not."""
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._programs)

    def program(self, signature: Signature, slots: int, expected: int) -> Program:
        """The program to train up to `slots` members of a signature at once: a kept one where there is, else a new one.

        `expected` is how many trials of the signature are likely to come in all.

        Raises:
            Refused: the data set or the network is impossible.
        """
        wanted = self._wanted(signature, slots, expected)
        kept = [variant for known, variant in self._programs if known == signature]
        # A retried trial alone, say, is sooner done in a program for eight than by compiling another.
        usable = [variant for variant in kept if variant.members > 1 or slots == 1]
        return self._get(signature, wanted if wanted in kept or not usable else usable[-1])

    def give_up(self, program: Program) -> Program:
        """The plainest program of the signature instead of one that can't be compiled, which isn't tried again."""
        self._failed.add((program.signature, program.variant))
        self._programs.pop((program.signature, program.variant), None)
        return self.single(program.signature)

    def fixed(self, signature: Signature, slots: int) -> Program:
        """The program of a deterministic study: the same variant whatever was measured, kept or is free.

        Raises:
            Refused: the data set or the network is impossible.
        """
        return self._get(signature, fixed_variant(signature, slots), shrinks=False)

    def single(self, signature: Signature) -> Program:
        """The plainest program of a signature: one member a call, no compiler."""
        return self._get(signature, Variant(1, xla=False))

    def prepare(self, signature: Signature, slots: int, expected: int, *, fixed: bool = False) -> None:
        """Compile the program that `program`, or `fixed`, would give, on the second thread.

        Raises:
            Refused: the data set or the network is impossible.
        """
        program = self.fixed(signature, slots) if fixed else self.program(signature, slots, expected)
        if self._second is not None and program.compile_s is None:
            self._jobs = [job for job in self._jobs if not job.done()]
            self._jobs.append(self._second.submit(_attempt, program.compile))

    def better(self, program: Program, slots: int) -> Program | None:
        """A program that was measured to be faster than `program` for so many members, where one was; see the module.

        Starts measuring another variant where the time has come for it.
        """
        if self._trial is not None and self._trial.done():
            other, seconds = self._trial.result()
            self._trial = None
            self._note(other.signature, seconds)
            if other.signature == program.signature and self._is_faster(seconds, other.variant, program.variant, slots):
                return self._keep(other)
        elif self._trial is None:
            self._try_another(program, slots)
        return None

    def note(self, program: Program) -> None:
        """Remember how fast a program was while it trained."""
        if program.epoch_s < float("inf"):
            self._note(program.signature, {program.variant: program.epoch_s})

    def clear(self) -> None:
        """Drop all programs, such as after the device ran out of memory."""
        self._programs.clear()

    def is_busy(self) -> bool:
        """Whether the second thread compiles or measures."""
        measuring = self._trial is not None and not self._trial.done()
        return measuring or any(not job.done() for job in self._jobs)

    def _wanted(self, signature: Signature, slots: int, expected: int) -> Variant:
        """The variant that was measured to be the fastest for so many members, else the first guess."""
        possible = self._possible(signature, slots)
        known = {v: s for v, s in self._timings.of(signature).items() if v in possible}
        if expected < MANY_TRIALS and not any(v.xla and (signature, v) in self._programs for v in possible):
            return next((v for v in possible if not v.xla), Variant(1, xla=False))
        if possible[0] not in known:
            return possible[0]
        return min(known, key=lambda v: member_epoch_s(known[v], v.members, slots))

    def _possible(self, signature: Signature, slots: int) -> list[Variant]:
        """The variants worth a trial that are not known to fail; the plainest one is never given up."""
        possible = [v for v in candidates(signature, slots) if (signature, v) not in self._failed]
        return possible or [Variant(1, xla=False)]

    def _get(self, signature: Signature, variant: Variant, *, shrinks: bool = True) -> Program:
        key = signature, variant
        if key in self._programs:
            self.hits += 1
            self._programs.move_to_end(key)
            return self._programs[key]
        self.misses += 1
        program = Program(signature, variant, self.faults)
        if shrinks and not fits_memory(program, variant.members, self.memory_mb):
            return self._get(signature, Variant(1, variant.xla))
        return self._keep(program)

    def _keep(self, program: Program) -> Program:
        self._programs[program.signature, program.variant] = program
        while len(self._programs) > self._max_programs:
            self._programs.popitem(last=False)
        return program

    def _note(self, signature: Signature, seconds: dict[Variant, float]) -> None:
        if seconds:
            self._timings.note(signature, seconds)

    def _is_faster(self, seconds: dict[Variant, float], other: Variant, present: Variant, slots: int) -> bool:
        if other not in seconds or present not in seconds:
            return False
        mine, theirs = (member_epoch_s(seconds[v], v.members, slots) for v in (present, other))
        return theirs < WORTHWHILE * mine

    def _try_another(self, program: Program, slots: int) -> None:
        """Measure the next variant, where its signature has trained for so long that it costs little beside that."""
        if self._second is None or program.compile_s is None or self.is_busy():
            return
        signature = program.signature
        tried = self._tried.setdefault(signature, set())
        cost_s = program.compile_s * (1 + len(tried))
        if program.trained_s * PROMISING_SHARE <= cost_s:
            return
        possible = self._possible(signature, slots)
        known = self._timings.of(signature)
        left = [v for v in possible if v not in known and v not in tried and v != program.variant]
        if not left:
            return
        share = PROMISING_SHARE if left[0] == possible[0] else OTHER_SHARE
        if program.trained_s * share > cost_s:
            tried.add(left[0])
            self._trial = self._second.submit(_measured, program, Program(signature, left[0], self.faults))


def _attempt(work: Callable[[], None]) -> None:
    """Do `work` ahead of its time: where it fails, it will fail again when its result is needed, and be told there."""
    with suppress(Exception):
        work()


def _measured(program: Program, other: Program) -> tuple[Program, dict[Variant, float]]:
    """Seconds of an epoch of both, in turn; nothing where the other one can't be compiled or run."""
    seconds = {program.variant: float("inf"), other.variant: float("inf")}
    with suppress(Exception):
        other.compile()
        for _ in range(TIMED_EPOCHS):
            for one in (program, other):
                seconds[one.variant] = min(seconds[one.variant], one.time_epoch())
        return other, seconds
    return other, {}
