"""What users wrote, as texts of a figure: shown as written, whatever it is.

Plotly renders a subset of HTML, entities, TeX between dollars and `%{…}` in every text of a figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.families import Scalar
from app.domain.json import dumps

LONGEST = 24
"""Characters of a label; a choice may have a thousand."""

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "%": "&#37;", "\n": " ", "\r": " "})


def escaped(text: str) -> str:
    """A text that Plotly shows as it is here."""
    return text.translate(_ESCAPES)


def shortened(text: str, most: int = LONGEST) -> str:
    """At most `most` characters of a text: its begin and its end, which tell long names apart."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}…{text[-end:]}"


def label(text: str, most: int = LONGEST) -> str:
    """A name or choice as a figure shows it."""
    return escaped(shortened(text, most))


def choice_labels(choices: Sequence[Scalar]) -> list[str]:
    """Choices as a figure shows them: plainly, and as JSON where two of them would look the same (1 and "1")."""
    plain = [choice if isinstance(choice, str) else dumps(choice) for choice in choices]
    return [label(text) for text in (plain if len(set(plain)) == len(plain) else map(dumps, choices))]


def number_texts(values: Sequence[float]) -> list[str]:
    """Numbers as people read them, in as many digits as tell them apart."""
    texts: list[str] = []
    for digits in (4, 6, 9, 12, 17):
        texts = [f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts
