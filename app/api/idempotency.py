"""`Idempotency-Key`: the same key and body give the same answer, another body 422, a concurrent request 409."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastapi import Request, Response
from sqlalchemy.orm import Session

from app.api.answers import JSON, Answer
from app.errors import RequestInFlight
from app.store import idempotency
from app.store.idempotency import RecordedAnswer

if TYPE_CHECKING:
    from app.api.deps import Service


class InFlight:
    """The keys that this process serves now. Other processes are seen by the database's lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, project: str, key: str) -> Iterator[None]:
        """Hold a key for the length of the block.

        Raises:
            RequestInFlight: another request holds it.
        """
        with self._lock:
            if (project, key) in self._keys:
                raise RequestInFlight(
                    f"Expected the first request with Idempotency-Key {key!r} to end before the next."
                )
            self._keys.add((project, key))
        try:
            yield
        finally:
            with self._lock:
                self._keys.discard((project, key))


def once(
    service: Service,
    project: str,
    request: Request,
    key: str | None,
    work: Callable[[Session], Response],
    *,
    always: bool = True,
) -> Response:
    """The answer of `work`, done in one transaction, or the one recorded for the key.

    Without a key it is done once too, even where the answer to its COMMIT is lost and the transaction is tried again:
    unless not `always`, for work that does no harm when it is done twice.
    """
    if key is None:
        return service.database.run(_recorded_for_itself(project, work) if always else work)
    fingerprint = _fingerprint(request)

    def recorded(session: Session) -> Response:
        known = idempotency.claim(session, project, key, fingerprint)
        if known is not None:
            return _answer_again(known)
        response = work(session)
        idempotency.record(session, project, key, _to_record(response))
        return response

    with service.in_flight.hold(project, key):
        return service.database.run(recorded)


def _recorded_for_itself(project: str, work: Callable[[Session], Response]) -> Callable[[Session], Response]:
    """`work` that finds, when its transaction is tried again, that an earlier try has happened.

    The first try pays one statement for it, and looks for nothing.
    """
    key, is_first = idempotency.own_key(), True

    def recorded(session: Session) -> Response:
        nonlocal is_first
        record = idempotency.record_own if is_first else idempotency.record
        if not is_first:
            known = idempotency.claim_own(session, project, key)
            if known is not None:
                return _answer_again(known)
        is_first = False
        response = work(session)
        record(session, project, key, _to_record(response))
        return response

    return recorded


def again(service: Service, project: str, request: Request, key: str | None) -> Response | None:
    """The answer recorded for a key, for a request whose work is more than one transaction; None where it is new."""
    if key is None:
        return None
    with service.database.read() as session:
        known = idempotency.recorded(session, project, key, _fingerprint(request))
    return None if known is None else _answer_again(known)


def _answer_again(known: RecordedAnswer) -> Response:
    return Response(known.body, known.status, media_type=JSON, headers=known.headers)


def _to_record(response: Response) -> RecordedAnswer:
    headers = {name: response.headers[name] for name in ("Location", "ETag") if name in response.headers}
    study = response.study if isinstance(response, Answer) else None
    return RecordedAnswer(response.status_code, headers, bytes(response.body).decode(), study)


def _fingerprint(request: Request) -> str:
    body = json.dumps(getattr(request.state, "json", None), sort_keys=True)
    return hashlib.sha256(f"{request.method} {request.url.path}\n{body}".encode()).hexdigest()
