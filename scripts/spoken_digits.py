"""Makes `worker/training/data/spoken_digits.xz`, the clips of the data set `spoken-digits`, with Debian's espeak-ng.

    apt-get install espeak-ng
    python scripts/spoken_digits.py            # writes the file; needs SciPy
    python scripts/spoken_digits.py --check    # writes nothing; leaves with 1 where the file would differ

The same version of espeak-ng (VERSION) gives the same file byte for byte. Every voice, an accent with a variant of the
speaker, says every word at each speed and pitch. Noise, loudness and place in time are added when the set is loaded.
"""

from __future__ import annotations

import argparse
import io
import itertools
import lzma
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

VERSION = "1.51"
"""Of espeak-ng, in Debian 12."""
TARGET = Path(__file__).resolve().parents[1] / "worker" / "training" / "data" / "spoken_digits.xz"

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = (
    "en-gb+m1", "en-us+m3", "en-gb-scotland+m7", "en-029+m4", "en-gb-x-rp+f2", "en-us+f4",
    "en-gb-x-gbclan+f3", "en-us-nyc+m2", "en-gb-x-gbcwmd+f5", "en-gb+Andy", "en-us+klatt2", "en-gb-scotland+f1",
)  # fmt: skip
SPEEDS = (130, 160, 190, 220)
"""Words a minute."""
PITCHES = (35, 65)
"""Of espeak-ng's 0 to 99."""

SAMPLE_RATE = 8_000
UP, DOWN = 160, 441
"""8,000 Hz over espeak-ng's 22,050 Hz."""
SILENCE = 0.02
"""Share of a clip's peak below which its beginning and end are cut off."""
MU = 255
LEVELS = 64
"""A sample is one of so many levels, spaced by the mu-law (ITU-T G.711): 6 bits, for louder noise is added anyway."""


def spoken(voice: str, speed: int, pitch: int, word: str) -> NDArray[np.float64]:
    """One clip at 8 kHz, its peak at 1, without the silence around it."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    out = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(out)) as clip:
        if clip.getframerate() * UP != SAMPLE_RATE * DOWN:
            raise ValueError(f"Expected clips of 22050 Hz. Received: {clip.getframerate()}")
        # To a pipe espeak-ng writes no length into the header: all that follows are samples.
        samples = np.frombuffer(out[44:], np.int16) / 2.0**15
    waveform = resample_poly(samples, UP, DOWN)
    waveform /= np.abs(waveform).max()
    loud = np.flatnonzero(np.abs(waveform) > SILENCE)
    kept: NDArray[np.float64] = waveform[loud[0] : loud[-1] + 1]
    return kept


def encoded(waveform: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Samples within -1 and 1 as levels by the mu-law."""
    squeezed = np.sign(waveform) * np.log1p(MU * np.abs(waveform)) / np.log1p(MU)
    return np.clip(np.round((squeezed + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1).astype(np.uint8)


def made() -> bytes:
    """The file: an `.npz` without compression of its own, in xz."""
    rows = list(itertools.product(range(len(VOICES)), SPEEDS, PITCHES, range(len(WORDS))))
    clips = [encoded(spoken(VOICES[voice], speed, pitch, WORDS[word])) for voice, speed, pitch, word in rows]
    held = io.BytesIO()
    np.savez(
        held,
        levels=np.concatenate(clips),
        lengths=np.array([len(clip) for clip in clips], np.int32),
        voices=np.array([row[0] for row in rows], np.uint8),
        words=np.array([row[3] for row in rows], np.uint8),
    )
    return lzma.compress(held.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    options = parser.parse_args()
    version = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    if VERSION not in version:
        print(f"Expected espeak-ng {VERSION}, whose clips are shipped. Received: {version.strip()}", file=sys.stderr)
    content = made()
    if options.check:
        same = TARGET.exists() and TARGET.read_bytes() == content
        print("the same" if same else "another")
        return 0 if same else 1
    TARGET.write_bytes(content)
    print(f"{TARGET.name}: {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
