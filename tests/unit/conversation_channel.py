"""The supervisor's end of a conversation, in the same process, with every message kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from worker.protocol import (
    EpochDone,
    EpochReport,
    Keep,
    KeepModel,
    Kept,
    KeptModel,
    MemberResult,
    MembersDone,
    Stop,
    Verdict,
    from_trainer,
)


@dataclass
class Supervisor:
    """Answers a stack's messages: `stop` by the reports of an epoch, `keep` by the results of members that ended."""

    stop: Callable[[list[EpochReport]], list[Stop]] = lambda reports: []
    keep: Callable[[list[MemberResult]], list[KeepModel]] = lambda results: []
    reports: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    results: dict[int, MemberResult] = field(default_factory=dict)
    kept: list[KeptModel] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _answers: list[Verdict | Keep] = field(default_factory=list)

    def send(self, message: EpochDone | MembersDone | Kept) -> None:
        message = from_trainer.validate_json(message.model_dump_json())
        self.said.append(message.kind)
        if isinstance(message, EpochDone):
            for report in message.reports:
                assert report.epoch == len(self.reports.setdefault(report.member, []))
                self.reports[report.member].append(report.metrics)
            self._answers.append(Verdict(stack=message.stack, stop=self.stop(message.reports)))
        elif isinstance(message, MembersDone):
            assert not self.results.keys() & {r.member for r in message.results}
            self.results.update({r.member: r for r in message.results})
            self._answers.append(Keep(stack=message.stack, models=self.keep(message.results)))
        else:
            self.kept += message.models

    def receive(self) -> Verdict | Keep:
        return self._answers.pop(0)
