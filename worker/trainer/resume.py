"""The trainer's side of snapshots: members start from them, and leave them. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from worker.progress import Progress
from worker.trainer.protocol import KeptSnapshot, Resume, ResumedMember, TakeSnapshot
from worker.trainer.snapshots import (
    Arrays,
    Shelf,
    Snapshot,
    UnreadableSnapshot,
    read_snapshot,
    snapshot_key,
    write_snapshot,
)
from worker.trainer.trainable import Trainee

IDENTITY, PROGRESS = "identity", "progress"
"""The details of a snapshot: what it fits, and how far the member was."""


class Snapshots:
    """The snapshots of one stack's members."""

    def __init__(self, trainee: Trainee, shelf: Shelf) -> None:
        self._trainee = trainee
        self._shelf = shelf

    def start(self, progress: Progress) -> list[ResumedMember]:
        """Start a member from the first of its snapshots that can be used, or from fresh weights; what to tell of it.

        Raises:
            Refused: the member can't be trained.
            UnreadableSnapshot: none can be used, and it was to go on from another trial.
        """
        member, problems = progress.member, []
        for resume in member.resume:
            try:
                self._resume(progress, resume)
            except UnreadableSnapshot as error:
                problems.append(str(error))
            else:
                told = progress.epochs > 0 or problems
                if not told:
                    return []
                instances = progress.instance_results if progress.instances > 1 else []
                return [
                    ResumedMember(member=member.member, epochs=progress.epochs, instances=instances, problems=problems)
                ]
        if any(not resume.own for resume in member.resume):
            raise UnreadableSnapshot(f"The trial that this one goes on from can't be read. {' '.join(problems)}")
        self._trainee.start(member)
        return [ResumedMember(member=member.member, epochs=0, problems=problems)] if problems else []

    def _resume(self, progress: Progress, resume: Resume) -> None:
        snapshot = self._shelf.get(resume.key) or read_snapshot(resume.path)
        found = snapshot.details.get(IDENTITY)
        if found != self._trainee.identity:
            raise UnreadableSnapshot(f"Expected a snapshot of {self._trainee.identity}. Received one of {found}")
        state = snapshot.details.get(PROGRESS)
        before = progress.state()
        try:
            if resume.own:
                progress.restore(state if isinstance(state, Mapping) else {})
            self._trainee.resume(progress.member, snapshot.arrays, inherited=not resume.own)
        except KeyError as error:
            progress.restore(before)
            raise UnreadableSnapshot(f"Expected a whole snapshot. Received one without {error}") from error
        except UnreadableSnapshot:
            progress.restore(before)
            raise

    def taken(
        self, wanted: Sequence[TakeSnapshot], members: Mapping[int, Progress]
    ) -> list[Callable[[], KeptSnapshot]]:
        """Take snapshots now; the calls that write them, or tell why they can't, are made on another thread."""
        sound = {m: p for m, p in members.items() if p.failure is None and p.error is None}
        present = [one for one in wanted if one.member in sound]
        try:
            arrays = self._trainee.snapshot([sound[one.member].member for one in present]) if present else {}
        except Exception as error:  # noqa: BLE001 - memory may be short: the member trains on without
            reason = f"{type(error).__name__}: {error}"
            return [_without(one, reason) for one in wanted]
        calls = []
        for one in wanted:
            if one.member in arrays:
                calls.append(self._writing(one, sound[one.member], arrays[one.member]))
            else:
                calls.append(_without(one, "The member had ended."))
        return calls

    def _writing(self, wanted: TakeSnapshot, progress: Progress, arrays: Arrays) -> Callable[[], KeptSnapshot]:
        epochs = progress.epochs
        snapshot = Snapshot(arrays, {IDENTITY: self._trainee.identity, PROGRESS: progress.state()})
        if wanted.key is not None:
            self._shelf.put(snapshot_key(wanted.key, epochs), snapshot)

        def write() -> KeptSnapshot:
            try:
                size = write_snapshot(wanted.path, snapshot)
            except Exception as error:  # noqa: BLE001 - told in the trial's log
                return _without(wanted, f"{type(error).__name__}: {error}")()
            return KeptSnapshot(member=wanted.member, path=wanted.path, epochs=epochs, size_bytes=size)

        return write


def _without(wanted: TakeSnapshot, reason: str) -> Callable[[], KeptSnapshot]:
    """What tells that there is no snapshot."""
    return lambda: KeptSnapshot(member=wanted.member, path=wanted.path, error=reason)
