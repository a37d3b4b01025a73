"""The trainer's own process: `python -m worker.trainer FD DEVICE TIMINGS FAMILY…`.

It holds TensorFlow and no credentials.

TensorFlow is imported on a second thread at once, and the families that need it are announced when it is there: no
trial is claimed for a trainer that can't train it. The family `function` doesn't wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from worker.confinement import confine
from worker.plugin_loading import installed
from worker.trainer.channel import Channel, ChannelBroken
from worker.trainer.function import run_function
from worker.trainer.protocol import (
    MADE_DATASETS,
    Halt,
    Prepare,
    Ready,
    Request,
    Shutdown,
    TakeSnapshots,
    TrainStack,
    to_trainer,
)
from worker.trainer.snapshots import Shelf

if TYPE_CHECKING:
    from worker.training.network_registry import Networks
    from worker.training.workshop import Workshop

WARMING_POLL_S = 0.05
"""How often a trainer that still imports TensorFlow looks for messages."""


def main(arguments: list[str]) -> None:
    """Serve the supervisor on the pipe until it says `shutdown` or is gone."""
    descriptor, device, timings, *families = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    confine(device)
    os.dup2(2, 1)  # whatever a library prints goes to the log
    channel: Channel[Request] = Channel(Connection(int(descriptor)), to_trainer)
    with contextlib.suppress(ChannelBroken):
        _serve(channel, device, Path(timings), families)


class _Warming(threading.Thread):
    """Imports TensorFlow, the training code and plugins'; `failure` is what came in the way.

    `networks` are those that can be trained then; `broken` says by name why families of plugins can't.
    """

    def __init__(self, device: str, families: list[str]) -> None:
        super().__init__(daemon=True)
        self._device = device
        self._families = families
        self.failure: BaseException | None = None
        self.networks: Networks | None = None
        self.broken: dict[str, str] = {}

    def run(self) -> None:
        try:
            from worker.training import loop  # noqa: F401 - imported beside the families that need no TensorFlow
            from worker.training.device import configure, require_device
            from worker.training.plugins import networks_of

            configure()
            require_device(self._device)
            self.networks, self.broken = networks_of(installed(), self._families)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self.failure = error


def _announce(channel: Channel[Request], device: str, families: list[str], shelf: Shelf) -> Networks | None:
    """Say what can be trained now, and the rest once TensorFlow is there. Serves `function` stacks in between.

    The networks that can be trained; None where no family needs any.

    Raises:
        BaseException: what kept TensorFlow or the training code from being imported.
    """
    light = [name for name in families if name == "function"]
    channel.send(Ready(pid=os.getpid(), device=device, families=light))
    if light == families:
        return None
    warming = _Warming(device, families)
    warming.start()
    while warming.is_alive():
        if light and channel.poll(WARMING_POLL_S):
            message = channel.receive()
            if isinstance(message, TrainStack) and message.family not in light:
                raise ChannelBroken(
                    f"Expected a stack of {', '.join(light)}. Received one of {message.family!r} too early."
                )
            _handle(channel, message, None, shelf)
        elif not light:
            warming.join()
    if warming.failure is not None:
        raise warming.failure
    able = [name for name in families if name not in warming.broken]
    channel.send(Ready(pid=os.getpid(), device=device, families=able, broken=warming.broken))
    return warming.networks


def _serve(channel: Channel[Request], device: str, timings: Path, families: list[str]) -> None:
    shelf = Shelf()
    networks = _announce(channel, device, families, shelf)
    workshop: Workshop | None = None
    if networks is not None:
        from worker.training.data import cache
        from worker.training.workshop import Workshop

        cache.keep_in(timings.with_name(MADE_DATASETS))
        workshop = Workshop(timings, networks)
    while True:
        _handle(channel, channel.receive(), workshop, shelf)


def _handle(channel: Channel[Request], message: Request, workshop: Workshop | None, shelf: Shelf) -> None:
    """Train a stack. Leaves the process on `shutdown`."""
    if isinstance(message, Shutdown):
        os._exit(0)  # nothing to save, and a program may be compiling on another thread
    if isinstance(message, Prepare | Halt | TakeSnapshots):
        if workshop is not None and isinstance(message, Prepare):
            workshop.prepare(message)
    elif not isinstance(message, TrainStack):
        raise ChannelBroken(f"Expected train_stack, prepare or shutdown between stacks. Received: {message.kind}")
    elif message.family == "function":
        run_function(message, channel, shelf)
    elif workshop is None:
        raise ChannelBroken(f"Expected a stack of function. Received one of {message.family!r}.")
    else:
        workshop.train(message, channel, shelf)


if __name__ == "__main__":
    main(sys.argv[1:])
