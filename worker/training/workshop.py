"""What a trainer keeps from stack to stack: its compiled programs, and the lanes that blocks of members train in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from worker.trainer.protocol import Prepare, TrainStack
from worker.trainer.snapshots import Shelf
from worker.trainer.trainable import Channel
from worker.training.cache import ProgramCache
from worker.training.device import lanes
from worker.training.loop import prepare, train_stack
from worker.training.network_registry import Networks


class Workshop:
    """One a trainer, for its `networks`. `timings` is the file that remembers how fast programs are."""

    def __init__(self, timings: Path, networks: Networks) -> None:
        self._networks = networks
        self._cache = ProgramCache(timings)
        count = lanes()
        self._lanes = ThreadPoolExecutor(count, "lane") if count > 1 else None

    def train(self, request: TrainStack, channel: Channel, shelf: Shelf) -> None:
        """Train a stack to its end. `shelf` holds snapshots from stack to stack."""
        train_stack(request, channel, self._cache, self._lanes, shelf, networks=self._networks)

    def prepare(self, wanted: Prepare) -> None:
        """Compile ahead what a stack to come will need."""
        prepare(wanted, self._cache, self._networks)
