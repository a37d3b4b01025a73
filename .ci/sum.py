"""Prints the sum of pytest's closing lines in the files that are named, in pytest's own form."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

CLOSING = re.compile(r"^=+ (?P<counts>.*\d (?:passed|failed|errors?|skipped)\b.*) in (?P<seconds>[\d.]+)s\b.*=+$")
ORDER = ("failed", "passed", "skipped", "xfailed", "xpassed", "error")


def total(texts: list[str]) -> str:
    """The closing line of runs that printed these texts; one that printed none is an error."""
    counts: Counter[str] = Counter()
    seconds = 0.0
    for text in texts:
        closing = [found for line in text.splitlines() if (found := CLOSING.match(line.strip()))]
        if not closing:
            counts["error"] += 1
            continue
        seconds += float(closing[-1]["seconds"])
        for number, word in re.findall(r"(\d+) (\w+)", closing[-1]["counts"]):
            counts["error" if word == "errors" else word] += int(number)
    words = [
        f"{counts[word]} {word}{'s' if word == 'error' and counts[word] > 1 else ''}" for word in ORDER if counts[word]
    ]
    return f" {', '.join(words)} in {seconds:.2f}s ".center(80, "=")


if __name__ == "__main__":
    print(total([Path(name).read_text(encoding="utf-8", errors="replace") for name in sys.argv[1:]]))
