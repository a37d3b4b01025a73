"""A receiver of webhooks: a real HTTP server whose answers a test decides."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(self.body)["events"]
        return events

    def is_signed_with(self, secret: str) -> bool:
        """The receiver's side of Standard Webhooks, written from its specification."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        text = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """`answer` gives the status for each request as it comes, and may take its time; `accepted` were taken."""

    answer: Callable[[Received], int] = lambda _: 204
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    accepted: list[Received] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def events(self, study_id: str | None = None) -> list[dict[str, Any]]:
        """The events of requests that were taken, without those that came again."""
        with self.lock:
            told = [event for request in self.accepted for event in request.events]
        unique = {(e.get("study_id"), e.get("seq")): e for e in told}
        return [e for e in unique.values() if study_id in (None, e.get("study_id"))]

    def kinds(self, study_id: str | None = None) -> list[str]:
        return [event["type"] for event in self.events(study_id)]

    def take(self, request: Received) -> int:
        with self.lock:
            self.received.append(request)
        status = self.answer(request)
        if 200 <= status < 300:
            with self.lock:
                self.accepted.append(request)
        return status


@contextmanager
def receiving(**options: Any) -> Iterator[Receiver]:
    """A receiver on a free port of this machine until the end of the block."""
    receiver = Receiver(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                self.send_response(receiver.take(Received(self.path, headers, body)))
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                self.close_connection = True  # the sender has given up

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
