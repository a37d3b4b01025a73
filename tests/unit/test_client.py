"""The client against scripted servers: what a real service does only on bad days."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.client import FettleClient, FettleProblem, Reset, ServiceUnavailable, StudyEvent, TrialMetrics
from app.client.models import Event, Trial
from app.client.stream import frames

Handle = Callable[["Scripted"], None]


class Scripted(BaseHTTPRequestHandler):
    """Answers with the next function of the script, the last one again and again."""

    protocol_version = "HTTP/1.1"
    script: list[Handle]
    seen: list[tuple[str, str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        (self.script.pop(0) if len(self.script) > 1 else self.script[0])(self)

    do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815 - names that the standard library calls

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, *parts: str) -> None:
        """An event stream that breaks off after its parts."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", "1000000")  # more than comes: the client sees a broken connection
        self.end_headers()
        self.wfile.write("".join(parts).encode())
        self.close_connection = True

    def drop(self) -> None:
        """No answer at all."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def scripted() -> Iterator[Callable[..., tuple[FettleClient, type[Scripted]]]]:
    opened: list[tuple[ThreadingHTTPServer, FettleClient]] = []

    def start(*script: Handle) -> tuple[FettleClient, type[Scripted]]:
        handler = type("Handler", (Scripted,), {"script": list(script), "seen": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        client = FettleClient(f"http://127.0.0.1:{server.server_port}", timeout_s=5)
        opened.append((server, client))
        return client, handler

    yield start
    for server, client in opened:
        client.close()
        server.shutdown()
        server.server_close()


def frame(seq: int, kind: str = "trial.metrics", **fields: object) -> str:
    if kind == "trial.metrics":
        fields = {"trial": 0, "epoch": seq, "metrics": {"loss": 0.5}, **fields}
    data = json.dumps({"seq": seq, "type": kind, "study_id": "s", **fields}, ensure_ascii=False)
    return f"id: {seq}\nevent: {kind}\ndata: {data}\n\n"


STUDY = {"id": "s1", "name": "a", "state": "RUNNING", "progress": {"waiting": 0}, "something_new": [1]}


# -- calls ------------------------------------------------------------------------------------------------------------


def test_a_creation_whose_answer_was_lost_is_sent_again_with_the_same_key(scripted: Callable[..., tuple]) -> None:
    client, server = scripted(Scripted.drop, lambda h: h.answer(201, STUDY))
    assert client.create_study({"name": "a"}).id == "s1"
    keys = {headers["idempotency-key"] for _, _, headers, _ in server.seen}
    assert len(server.seen) == 2
    assert len(keys) == 1


def test_two_creations_have_two_keys_unless_one_is_given(scripted: Callable[..., tuple]) -> None:
    client, server = scripted(lambda h: h.answer(201, STUDY))
    for key in (None, None, "mine", "mine"):
        client.create_study({"name": "a"}, idempotency_key=key)
    keys = [headers["idempotency-key"] for _, _, headers, _ in server.seen]
    assert len({keys[0], keys[1], "mine"}) == 3
    assert keys[2:] == ["mine", "mine"]


def test_a_deletion_whose_answer_was_lost_is_not_sent_again(scripted: Callable[..., tuple]) -> None:
    client, server = scripted(Scripted.drop)
    with pytest.raises(ServiceUnavailable):
        client.delete("s1")
    assert len(server.seen) == 1


def test_a_busy_service_is_asked_again_when_it_says(scripted: Callable[..., tuple]) -> None:
    busy = {"code": "RATE_LIMITED", "status": 429, "detail": "slower"}
    client, server = scripted(lambda h: h.answer(429, busy, Retry_After="0"), lambda h: h.answer(200, STUDY))
    assert client.study("s1").name == "a"
    assert len(server.seen) == 2


def test_a_wait_that_is_too_long_is_reported(scripted: Callable[..., tuple]) -> None:
    busy = {"code": "RATE_LIMITED", "status": 429, "detail": "slower"}
    client, server = scripted(lambda h: h.answer(429, busy, Retry_After="3600"))
    with pytest.raises(FettleProblem) as caught:
        client.study("s1")
    assert (caught.value.status, caught.value.code, len(server.seen)) == (429, "RATE_LIMITED", 1)


def test_a_problem_carries_code_detail_and_places(scripted: Callable[..., tuple]) -> None:
    body = {
        "type": "about:blank",
        "title": "Invalid",
        "status": 422,
        "code": "INVALID_STUDY",
        "detail": "One place is wrong.",
        "errors": [{"loc": ["budget", "trials"], "msg": "Expected at least 1"}],
    }
    client, server = scripted(lambda h: h.answer(422, body))
    with pytest.raises(
        FettleProblem, match=r"INVALID_STUDY \(422\): One place is wrong\.\n  budget\.trials: Expected"
    ) as e:
        client.create_study({})
    assert e.value.errors[0]["loc"] == ["budget", "trials"]
    assert len(server.seen) == 1, "a refusal is final"


def test_an_answer_of_something_else_is_called_that(scripted: Callable[..., tuple]) -> None:
    client, _ = scripted(lambda h: h.answer(404, "not json of ours"))
    with pytest.raises(FettleProblem, match="not one of its own") as caught:
        client.study("x")
    assert caught.value.code == "HTTP_404"


def test_no_service_is_said_in_words_with_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with FettleClient(url) as client:
        assert client.ready() is False
        with pytest.raises(ServiceUnavailable, match=f"{url}.*fettle up"):
            client.study("x")


def test_pages_are_read_to_the_end_with_the_filter_on_each(scripted: Callable[..., tuple]) -> None:
    def page(numbers: range, cursor: str | None) -> Handle:
        items = [{"study_id": "s", "number": n, "state": "COMPLETE"} for n in numbers]
        return lambda h: h.answer(200, {"items": items, "next_cursor": cursor})

    client, server = scripted(page(range(2), "a b"), page(range(2, 3), None))
    assert [trial.number for trial in client.trials("s", state="COMPLETE")] == [0, 1, 2]
    assert "cursor" not in server.seen[0][1]
    assert "cursor=a+b" in server.seen[1][1].replace("%20", "+")
    assert all("state=COMPLETE" in path for _, path, _, _ in server.seen)


def test_ids_are_quoted_in_paths(scripted: Callable[..., tuple]) -> None:
    client, server = scripted(lambda h: h.answer(200, STUDY))
    client.study("a/b?c")
    assert server.seen[0][1] == "/v1/studies/a%2Fb%3Fc"


def test_a_key_is_sent_as_a_bearer_token(scripted: Callable[..., tuple]) -> None:
    client, server = scripted(lambda h: h.answer(200, STUDY))
    with FettleClient(client.url, api_key="secret") as keyed:
        keyed.study("s")
    assert server.seen[0][2]["authorization"] == "Bearer secret"


def test_numbers_that_json_has_no_sign_for_are_floats() -> None:
    trial = Trial.model_validate(
        {"study_id": "s", "number": 0, "state": "FAIL", "values": {"loss": "NaN", "x": "-Infinity"}}
    )
    assert trial.values is not None
    assert trial.values["loss"] != trial.values["loss"]
    assert trial.values["x"] == float("-inf")
    assert '"-Infinity"' in trial.model_dump_json()


def test_a_download_that_breaks_off_leaves_no_file(scripted: Callable[..., tuple], tmp_path: Path) -> None:
    client, _ = scripted(lambda h: h.stream("half of a model"))
    with pytest.raises(ServiceUnavailable):
        client.download_artifact("s", 0, "model.keras", tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


# -- the stream -------------------------------------------------------------------------------------------------------


def test_a_broken_stream_goes_on_after_the_last_event_and_ends_at_204(scripted: Callable[..., tuple]) -> None:
    half = frame(3)[:20]
    client, server = scripted(
        lambda h: h.stream(": ping\n\n", frame(1), frame(2), half),
        Scripted.drop,
        lambda h: h.answer(503, {"code": "UNREADY", "status": 503, "detail": "restarting"}),
        lambda h: h.stream(frame(2), frame(3), frame(4, "study.finished", state="COMPLETED")),
        lambda h: h.answer(204),
    )
    events = list(client.events("s"))
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert isinstance(events[0], TrialMetrics)
    assert isinstance(events[3], StudyEvent)
    assert [headers.get("last-event-id") for _, _, headers, _ in server.seen] == [None, "2", "2", "2", "4"]


def test_a_stream_of_a_study_that_is_not_there_is_a_problem_at_once(scripted: Callable[..., tuple]) -> None:
    client, server = scripted(lambda h: h.answer(404, {"code": "STUDY_NOT_FOUND", "status": 404, "detail": "no"}))
    with pytest.raises(FettleProblem, match="STUDY_NOT_FOUND"):
        list(client.events("s"))
    assert len(server.seen) == 1


def test_a_service_that_stays_away_ends_the_stream_in_words(scripted: Callable[..., tuple]) -> None:
    client, server = scripted(Scripted.drop)
    with pytest.raises(ServiceUnavailable, match="no answer"):
        list(client.events("s", patience_s=0.3))
    assert len(server.seen) > 1


def test_without_following_the_stream_ends_where_the_log_does(scripted: Callable[..., tuple]) -> None:
    def whole(handler: Scripted) -> None:
        content = (frame(6) + frame(7)).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    client, server = scripted(whole)
    assert [event.seq for event in client.events("s", after=5, follow=False)] == [6, 7]
    assert server.seen[0][1].endswith("events?follow=false")
    assert server.seen[0][2]["last-event-id"] == "5"


def test_events_that_are_gone_are_told_and_new_types_do_no_harm(scripted: Callable[..., tuple]) -> None:
    reset = 'event: reset\ndata: {"first_seq": 40}\n\n'
    client, _ = scripted(
        lambda h: h.stream(reset, frame(40), frame(41, "trial.something_new", trial=3)), lambda h: h.answer(204)
    )
    first, second, third = client.events("s")
    assert isinstance(first, Reset)
    assert first.first_seq == 40
    assert second.seq == 40
    assert type(third) is Event


TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


@given(
    events=st.lists(st.tuples(st.integers(1, 99), TEXT.map(lambda t: "t" + t.replace(":", "")), TEXT), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_frames_come_out_whole_however_the_bytes_are_cut(
    events: list[tuple[int, str, str]], end: str, cuts: list[int]
) -> None:
    text = "".join(f"id: {n}{end}event: {kind}{end}: ping{end}data: {data}{end}{end}" for n, kind, data in events)
    raw = text.encode() + end.encode() * 2
    at = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    chunks = [raw[a:b] for a, b in pairwise(at)]
    got = [(int(f.id), f.event, f.data) for f in frames(chunks)]
    assert got == [(n, kind, data) for n, kind, data in events]
