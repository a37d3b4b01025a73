"""A study's events as an iterator that comes back by itself after a dropped connection."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx

from app.client.errors import FettleProblem, ServiceUnavailable
from app.client.models import Event, event_of
from app.client.transport import Transport

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
LASTING_S = 2.0
"""A connection that held for this long was a good one, even where nothing happened in the study."""
NO_CONTENT = 204
"""The service's word for: that was the log's last event."""
PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses that a restart or a rush explains."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it stands in a `text/event-stream`."""

    id: str
    event: str
    data: str


def frames(chunks: Iterable[bytes]) -> Iterator[Frame]:
    """The complete frames in a byte stream, by the rules of the HTML standard, section 9.2.6.

    Splits at CR, LF and CRLF alone: JSON may hold other characters that Python takes for line ends (U+2028).
    """
    fields: dict[str, list[str]] = {}
    for line in _lines(chunks):
        if line:
            name, _, value = line.partition(":")
            if name:  # else a comment: the service's ping
                fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            yield Frame(fields.get("id", [""])[-1], fields.get("event", ["message"])[-1], "\n".join(fields["data"]))
        fields = {}


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    pending = b""
    after_cr = False
    for chunk in chunks:
        data = pending + (chunk[1:] if after_cr and chunk.startswith(b"\n") else chunk)
        after_cr = chunk.endswith(b"\r") if chunk else after_cr
        *complete, pending = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in complete:
            yield line.decode("utf-8", "replace")


def follow(transport: Transport, path: str, *, after: int, until_finished: bool, patience_s: float) -> Iterator[Event]:
    """Events after number `after`, each once and in order.

    With `until_finished` it ends with the study; otherwise with the last event that there is now.
    A lost connection is taken up again at the last event seen, for `patience_s` seconds without any news.

    Raises:
        FettleProblem: the service refused.
        ServiceUnavailable: it stayed away for longer than `patience_s`.
    """
    backoff_s = FIRST_BACKOFF_S
    lost_at = time.monotonic()
    while True:
        cause = "the stream ended before the study did"
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after > 0:
            headers["Last-Event-ID"] = str(after)
        params = None if until_finished else {"follow": "false"}
        opened_at = time.monotonic()
        news = False
        try:
            with transport.stream(path, params=params, headers=headers) as response:
                if response.status_code == NO_CONTENT:
                    return
                for frame in frames(response.iter_bytes()):
                    event = event_of(frame.event, json.loads(frame.data))
                    if event.seq <= after and event.type != "reset":
                        continue
                    after = event.seq  # a reset may lead back, where the service's database was restored
                    news = True
                    yield event
            if not until_finished:
                return
        except httpx.TransportError as error:
            cause = str(error) or type(error).__name__
        except FettleProblem as problem:
            if problem.status not in PASSING:
                raise
            cause = str(problem)
        now = time.monotonic()
        if news or now - opened_at > LASTING_S:
            backoff_s, lost_at = FIRST_BACKOFF_S, now
        elif now - lost_at > patience_s:
            raise ServiceUnavailable(transport.url, cause)
        time.sleep(backoff_s)
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
