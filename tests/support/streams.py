"""Clients of event streams for tests: one that is cut and comes back, and the log that it must have seen."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
from sqlalchemy import select

from app.store.engine import Database
from app.store.tables import Event, Study

RECONNECT_S = 0.05
SILENCE_S = 60.0
"""Longest time that a follower waits for a byte: the service sends comments in between."""


def whole_events(chunks: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """The complete events in the bytes of a stream, as their fields; what a cut left of another is dropped."""
    pending = b""
    for chunk in chunks:
        *complete, pending = (pending + chunk).split(b"\n\n")
        for block in complete:
            lines = [line for line in block.decode().split("\n") if not line.startswith(":")]
            if lines:
                yield dict(line.split(": ", 1) for line in lines)


class Follower(threading.Thread):
    """Follows a stream to the end of the studies `until`, coming back by the last id that it saw whole.

    `cut` gives after how many bytes it drops the next connection, in the middle of whatever it is reading.
    """

    def __init__(
        self,
        url: str,
        path: str,
        until: Iterable[str],
        cut: Callable[[], int] | None = None,
        pause_s: float = RECONNECT_S,
    ) -> None:
        super().__init__(name=f"follower of {path}", daemon=True)
        self.seen: list[dict[str, Any]] = []
        """The data of the events, in the order of their arrival."""
        self.statuses: list[int] = []
        """The answers, one a connection."""
        self.problems: list[str] = []
        """Answers that no client should have to understand."""
        self.cuts = 0
        """Connections that it dropped itself."""
        self.broken = 0
        """Connections that broke, or were refused."""
        self._url = url + path
        self._until = set(until)
        self._cut = cut
        self._pause_s = pause_s
        self._last_id: str | None = None
        self._leaving = threading.Event()

    def leave(self) -> None:
        """Let go of the stream at its next byte."""
        self._leaving.set()

    @property
    def is_done(self) -> bool:
        """Whether it has seen the end of all that it follows."""
        return not self._until

    def run(self) -> None:
        with httpx.Client(timeout=SILENCE_S, trust_env=False) as client:
            while self._until and not self._leaving.is_set():
                try:
                    self._follow(client)
                except httpx.TransportError:
                    self.broken += 1
                time.sleep(self._pause_s)

    def _follow(self, client: httpx.Client) -> None:
        headers = {} if self._last_id is None else {"Last-Event-ID": self._last_id}
        with client.stream("GET", self._url, headers=headers) as response:
            self.statuses.append(response.status_code)
            if response.status_code != 200:
                self._note_refusal(response)
                return
            for event in whole_events(self._received(response)):
                if event["event"] == "reset":
                    self.problems.append("a reset")
                    continue
                data = json.loads(event["data"])
                self._last_id = event["id"]
                self.seen.append(data)
                if data["type"] == "study.finished":
                    self._until.discard(data["study_id"])
                if not self._until or self._leaving.is_set():
                    return

    def _received(self, response: httpx.Response) -> Iterator[bytes]:
        left = None if self._cut is None else self._cut()
        for chunk in response.iter_raw():
            if left is not None and len(chunk) >= left:
                yield chunk[:left]
                self.cuts += 1
                return
            if left is not None:
                left -= len(chunk)
            yield chunk

    def _note_refusal(self, response: httpx.Response) -> None:
        response.read()
        if response.status_code != 503 or "retry-after" not in response.headers:
            self.problems.append(f"{response.status_code} {response.text}")


def logged(database: Database, project: str = "default") -> dict[str, list[dict[str, Any]]]:
    """The events of each study, in the order of the log."""
    found: dict[str, list[dict[str, Any]]] = {}
    with database.read() as session:
        query = (
            select(Study.public_id, Event.data)
            .join(Event, Event.study_id == Study.id)
            .where(Study.project == project)
            .order_by(Study.id, Event.seq)
        )
        for public_id, data in session.execute(query):
            found.setdefault(public_id, []).append(json.loads(data))
    return found


def by_study(seen: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Events of a firehose, study by study, in the order of their arrival."""
    found: dict[str, list[dict[str, Any]]] = {}
    for data in seen:
        found.setdefault(data["study_id"], []).append(data)
    return found
