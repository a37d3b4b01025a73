"""A study's progress on the terminal, driven by its event stream alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.cli.printing import printable, say
from app.cli.scoreboard import Scoreboard, duration_words
from app.client import Event, Study

if TYPE_CHECKING:
    from rich.console import RenderableType

FRAMES_PER_SECOND = 8
PLAIN_EVERY_S = 2.0
"""Where there is no terminal, a line as often as this, and at the end."""
SHOWN_RUNNING = 6
"""Running trials listed by number."""


def show(study: Study, events: Iterable[Event]) -> Scoreboard:
    """The final standing, after showing every event's effect on the way."""
    board = Scoreboard(study)
    with _terminal(board) if sys.stdout.isatty() else _plain(board) as changed:
        for event in events:
            board.add(event)
            changed()
    reason = f": {board.state_reason.rstrip('.')}" if board.state_reason else ""
    say(f"Study {study.name} is {board.state}{reason}. Best {board.best_words()}.")
    return board


class _Plain:
    """Prints a line now and then."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board
        self._printed_at = time.monotonic()
        self._last = ""

    def __call__(self) -> None:
        if time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self.print()

    def print(self) -> None:
        """Print the standing, unless it is the line printed last."""
        line = self._board.line()
        if line != self._last:
            say(line)
        self._last, self._printed_at = line, time.monotonic()


@contextmanager
def _plain(board: Scoreboard) -> Iterator[_Plain]:
    printer = _Plain(board)
    yield printer
    printer.print()


class _Terminal:
    """A rich table that draws itself anew; the reader of events need not tell it."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board

    def __call__(self) -> None:
        """Nothing: the table is drawn by the clock."""

    def __rich__(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        board = self._board
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        table.add_row("study", Text(printable(f"{board.study.name} ({board.state.lower()})")))
        if board.total:
            table.add_row("", ProgressBar(total=board.total, completed=board.done, width=50))
        of = f" of {board.total}" if board.total else ""
        ended = ", ".join(f"{count} {state.lower()}" for state, count in board.ended.items())
        table.add_row("trials", Text(printable(f"{board.done}{of} done ({ended}), {board.epochs} epochs")))
        shown = [f"{number} ({doing})" for number, doing in sorted(board.running.items())[:SHOWN_RUNNING]]
        more = len(board.running) - len(shown)
        running = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
        table.add_row("running", Text(printable(running or "none")))
        table.add_row("best", Text(printable(board.best_words())))
        left_s = board.seconds_left()
        table.add_row("left", f"about {duration_words(left_s)}" if left_s is not None else "")
        return table


@contextmanager
def _terminal(board: Scoreboard) -> Iterator[_Terminal]:
    from rich.live import Live

    table = _Terminal(board)
    with Live(table, refresh_per_second=FRAMES_PER_SECOND):
        yield table
