"""The supervisor's end of a conversation, in the same process, with every message kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from worker.trainer.protocol import (
    Answer,
    EpochDone,
    EpochReport,
    Halt,
    Join,
    Keep,
    KeepModel,
    Kept,
    KeptModel,
    KeptSnapshot,
    Member,
    MemberResult,
    MembersDone,
    Prepare,
    Request,
    Resumed,
    ResumedMember,
    Stop,
    TakeSnapshot,
    TakeSnapshots,
    Verdict,
    from_trainer,
)


@dataclass
class Supervisor:
    """Answers a stack's messages: `stop` by the reports of an epoch, `keep` by the results of members that ended.

    `take` names members that ended whose state is to be written, `join` members that take the places of those that
    ended; `unasked` is what is sent after an epoch without being asked for. `judged` is that of the stack: whether
    epochs wait for a verdict.
    """

    stop: Callable[[list[EpochReport]], list[Stop]] = lambda reports: []
    keep: Callable[[list[MemberResult]], list[KeepModel]] = lambda results: []
    join: Callable[[list[MemberResult]], list[Member]] = lambda results: []
    unasked: Callable[[EpochDone], list[Join | Halt | TakeSnapshots | Prepare]] = lambda done: []
    take: Callable[[list[MemberResult]], list[TakeSnapshot]] = lambda results: []
    judged: bool = True
    snapshots: list[KeptSnapshot] = field(default_factory=list)
    resumed: dict[int, ResumedMember] = field(default_factory=dict)
    reports: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    results: dict[int, MemberResult] = field(default_factory=dict)
    kept: list[KeptModel] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    epochs: list[EpochDone] = field(default_factory=list)
    _answers: list[Request] = field(default_factory=list)

    def send(self, message: Answer) -> None:
        message = from_trainer.validate_json(message.model_dump_json())
        self.said.append(message.kind)
        if isinstance(message, EpochDone):
            self.epochs.append(message)
            for report in message.reports:
                behind = self.resumed[report.member].epochs if report.member in self.resumed else 0
                assert report.epoch == behind + len(self.reports.setdefault(report.member, []))
                self.reports[report.member].append(report.metrics)
            self._answers += self.unasked(message)
            if self.judged:
                self._answers.append(Verdict(stack=message.stack, stop=self.stop(message.reports)))
        elif isinstance(message, MembersDone):
            assert not self.results.keys() & {r.member for r in message.results}
            self.results.update({r.member: r for r in message.results})
            models, joining = self.keep(message.results), self.join(message.results)
            taken = self.take(message.results)
            self._answers.append(Keep(stack=message.stack, models=models, snapshots=taken, join=joining))
        elif isinstance(message, Kept):
            self.kept += message.models
            self.snapshots += message.snapshots
        elif isinstance(message, Resumed):
            assert not self.reports.keys() & {m.member for m in message.members}
            self.resumed |= {m.member: m for m in message.members}

    def poll(self, timeout_s: float) -> bool:
        return bool(self._answers)

    def receive(self) -> Request:
        return self._answers.pop(0)
