"""Which variants of a program there are, and what is known of their speed.

A variant is how many members one call trains, and whether XLA compiles it. Measured on a CPU (64-64-10 on digits at
batch size 32, one thread, ten epochs of a trial): without XLA 145 ms alone and 53 ms each of 8; with XLA 41 and 24 ms.
Small matrix products gain from company; a convolution (8×8 images, 16 and 32 filters) takes 330 ms alone and 450 ms
each of 8: its patches no longer fit the cache. Texts are large too: a transformer of one layer, 48 tokens of width 32,
takes 290 ms of CPU time alone and 350 ms each of 8 with XLA, 370 and 400 ms without. So the first guess goes by family
and device, and `Timings` remembers what was measured of each signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import tensorflow as tf

from app.domain.memory import MB, trial_bytes
from app.scratch import Scratch
from worker.training.network import Network
from worker.training.program import Program, Variant
from worker.training.signature import Signature

COMPANY = 8
"""Members of a call where they gain from company: 16 gain no more (24.0 against 24.7 ms), and leave more rows empty."""
CACHED_BYTES = 2_000_000
"""Patches of a batch up to which XLA's products beat a CPU's own convolutions: 8×8 images with 16 and 32 filters take
33 ms an epoch instead of 82, 28×28 images with 8 and 16 filters 0.52 s instead of 0.38."""
MEMORY_SHARE = 0.25
"""Of the memory that is free, what one call of a program may take."""
KEPT_SIGNATURES = 2000
"""Signatures whose timings are remembered; the one not measured for longest goes first."""


def on_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def candidates(signature: Signature, slots: int) -> list[Variant]:
    """The variants worth a trial where at most `slots` members train at once, the first guess first.

    Raises:
        Refused: the data set or the network is impossible.
    """
    network = signature.network(xla=False)
    company = min(COMPANY, slots) if network.stackable else 1
    if network.member_by_member:
        # Mapped convolutions are no faster in company, and XLA's are several times slower than a CPU's own.
        convolves = any(len(v.shape) > 2 for v in network.architecture.weights)
        images, plain_first = convolves and not on_gpu(), True
    else:
        images = signature.input_kind in ("image", "audio") and not on_gpu()
        plain_first = images and _patch_bytes(signature, network) > CACHED_BYTES
    apart = images or (signature.input_kind == "text" and not on_gpu())
    members = list(dict.fromkeys((1, company) if apart else (company, 1)))
    return [Variant(m, xla) for m in members for xla in ((False, True) if plain_first else (True, False))]


def fixed_variant(signature: Signature, slots: int) -> Variant:
    """The variant of a program that a deterministic study trains in: by signature and slots, never by measurement.

    XLA is left out: on a GPU it chooses its kernels by timing them.

    Raises:
        Refused: the data set or the network is impossible.
    """
    return Variant(candidates(signature, slots)[0].members, xla=False)


def _patch_bytes(signature: Signature, network: Network) -> int:
    """What the layers of one member give for a batch, a convolution's patches included."""
    return 4 * network.architecture.activation_count * int(signature.hyperparameters["batch_size"])


def member_epoch_s(epoch_s: float, members: int, slots: int) -> float:
    """Seconds of an epoch of one of `slots` members, where a call for `members` takes `epoch_s`."""
    return epoch_s * -(-slots // members) / slots


def fits_memory(program: Program, slots: int, memory_mb: float | None = None) -> bool:
    """Whether the members of a call fit the memory that is free, by what they hold; a single one is always tried.

    `memory_mb` is what the device has: of a GPU that counts alone.
    """
    if program.members == 1:
        return True
    layout = program.architecture
    held = trial_bytes(layout.weight_count, layout.activation_count, program.samples_at_once)
    has = float("inf") if memory_mb is None else memory_mb * MB
    free = has if on_gpu() and memory_mb is not None else min(has, psutil.virtual_memory().available)
    return held * max(program.members, slots) < MEMORY_SHARE * free


class Timings:
    """Seconds of an epoch by signature and variant, on this device and version of TensorFlow; kept in a file.

    Several trainers may share the file: each writes what it knows over what the others knew, whole or not at all. A
    file that can't be read or written is done without.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._machine = f"tensorflow {tf.__version__}, {'gpu' if on_gpu() else 'cpu'}, {os.cpu_count()} cores"
        self._known: dict[str, dict[str, float]] = dict(_entries(path))

    def of(self, signature: Signature) -> dict[Variant, float]:
        """What was measured of a signature."""
        return {_variant(name): seconds for name, seconds in self._known.get(self._key(signature), {}).items()}

    def note(self, signature: Signature, seconds: dict[Variant, float]) -> None:
        """Remember what was measured of a signature's variants."""
        key = self._key(signature)
        known = self._known.pop(key, {}) | {_name(variant): round(s, 6) for variant, s in seconds.items()}
        self._known[key] = known
        while len(self._known) > KEPT_SIGNATURES:
            del self._known[next(iter(self._known))]
        if self._path is not None:
            self._known = dict(_entries(self._path)) | self._known
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with Scratch("part", within=self._path.parent) as beside:
                    part = beside.path / self._path.name
                    part.write_text(json.dumps(self._known, indent=0), encoding="utf-8")
                    part.replace(self._path)

    def _key(self, signature: Signature) -> str:
        parts = [self._machine, signature.family, signature.version, signature.dataset.model_dump_json()]
        if signature.layers:
            parts.append(hashlib.sha256(f"{signature.input} {signature.layers}".encode()).hexdigest()[:16])
        computed = () if signature.precision == "float32" else (signature.precision,)
        return " | ".join((*parts, str(dict(signature.structure)), ",".join(signature.activations), *computed))


def _name(variant: Variant) -> str:
    return f"{variant.members}{'-xla' if variant.xla else ''}"


def _variant(name: str) -> Variant:
    members, _, xla = name.partition("-")
    return Variant(int(members), bool(xla))


def _entries(path: Path | None) -> Iterator[tuple[str, dict[str, float]]]:
    """The timings in a file that are such; none where it is missing or something else."""
    if path is None:
        return
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        for key, timings in found.items() if isinstance(found, dict) else ():
            with suppress(ValueError, TypeError, AttributeError):
                yield key, {_name(_variant(name)): float(seconds) for name, seconds in timings.items()}
