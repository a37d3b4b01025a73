"""The data set `spoken-digits`: ten English words by twelve synthetic voices, in noise. NumPy alone.

The clips lie beside this module: `scripts/spoken_digits.py` made them with espeak-ng. Each is put somewhere within a
recording of 0.8 s, louder or softer, with noise over it, by a seeded generator: the same recordings everywhere.
"""

from __future__ import annotations

import io
import lzma
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLIPS = Path(__file__).with_name("spoken_digits.xz")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RECORDINGS = 960
VOICES = 12
SAMPLE_RATE = 8_000
"""Samples a second."""
SAMPLES = 6_400
"""Of a recording: 0.8 s. The longest clip has 6,397."""
SEED = 19_360_304
"""Of the generator."""
QUIETEST = 0.1
"""Peak of the softest word, where the loudest has 1."""
NOISE_DB = (0.0, 20.0)
"""How far a word's mean power lies above that of its noise."""
PINK = 0.5
"""Noise falls with frequency to this power: between white (0) and pink (1) in amplitude, much as a room's."""
MU = 255
LEVELS = 64
"""What the clips' samples are encoded with: the mu-law (ITU-T G.711), at so many levels."""


def decoded(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Samples within -1 and 1 of levels by the mu-law."""
    squeezed = levels / (LEVELS - 1) * 2.0 - 1.0
    waveform: NDArray[np.float64] = np.sign(squeezed) * np.expm1(np.abs(squeezed) * np.log1p(MU)) / MU
    return waveform


@lru_cache(maxsize=1)
def spoken_digits() -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Recordings, [960, 6400] float32 within -1 and 1; words, [960] int32 as in `WORDS`; voices, [960] int32.

    Raises:
        OSError: the file is missing from the installation.
    """
    with np.load(io.BytesIO(lzma.decompress(CLIPS.read_bytes())), allow_pickle=False) as held:
        levels, lengths = held["levels"], held["lengths"]
        words, voices = held["words"].astype(np.int32), held["voices"].astype(np.int32)
    random = np.random.default_rng(SEED)
    recordings = np.stack(
        [_recorded(decoded(clip), random) for clip in np.split(levels, np.cumsum(lengths, dtype=np.int64)[:-1])]
    )
    return recordings.astype(np.float32), words, voices


def _recorded(clip: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """A clip somewhere in a recording, with noise over all of it."""
    quiet = np.zeros(SAMPLES)
    start = random.integers(0, SAMPLES - len(clip), endpoint=True)
    quiet[start : start + len(clip)] = clip
    power = np.square(clip).mean() / 10 ** (random.uniform(*NOISE_DB) / 10)
    recording = quiet + np.sqrt(power) * _noise(random)
    peak = np.exp(random.uniform(np.log(QUIETEST), 0.0))
    loud: NDArray[np.float64] = recording * peak / np.abs(recording).max()
    return loud


def _noise(random: np.random.Generator) -> NDArray[np.float64]:
    """Noise of mean power 1."""
    spectrum = np.fft.rfft(random.normal(size=SAMPLES))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** PINK
    spectrum[0] = 0.0
    noise = np.fft.irfft(spectrum, SAMPLES)
    shaped: NDArray[np.float64] = noise / np.sqrt(np.square(noise).mean())
    return shaped
