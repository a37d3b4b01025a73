r"""What commands print: tables, lines and JSON, in which nothing that users or trials wrote can steer a terminal.

A name or an error may hold escape sequences that clear the screen or write elsewhere, and marks that turn the direction
of a line around. They are shown as Python writes them, `\x1b`; in JSON as `\u001b`, which reads as the same text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters, halves of pairs, and separators of lines and paragraphs."""
JOINERS = frozenset("\u200c\u200d")
"""They are of that kind, steer nothing, and belong to words and emoji."""


def printable(text: str) -> str:
    """The text in one line, control and format characters escaped."""
    if text.isprintable():
        return text
    return "".join(_escaped(char) if _steers(char) else char for char in text)


def say(text: str, *, err: bool = False) -> None:
    """Print one line, on standard error where `err`."""
    typer.echo(printable(text), err=err)


def print_json(model: BaseModel) -> None:
    """Print what a service answered, as it answered it."""
    typer.echo(_printable_json(model.model_dump_json(exclude_unset=True)))


def print_items(models: Iterable[BaseModel]) -> None:
    """Print a list of what a service answered, as it answered it."""
    print_value({"items": [model.model_dump(mode="json", exclude_unset=True) for model in models]})


def print_value(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(_printable_json(json.dumps(value, ensure_ascii=False)))


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns as wide as their content; the last one is left ragged."""
    lines = [tuple(map(printable, row)) for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _steers(char: str) -> bool:
    return unicodedata.category(char) in UNSEEN and char not in JOINERS


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _printable_json(text: str) -> str:
    """JSON with such characters as escapes: all of them are inside strings."""
    if text.isprintable():
        return text
    return "".join(json.dumps(char)[1:-1] if _steers(char) else char for char in text)
