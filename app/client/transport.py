"""One HTTP call, tried again where that can't do anything twice; problems become exceptions."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from app.client.errors import FettleProblem, ServiceUnavailable
from app.client.models import Answer

A = TypeVar("A", bound=Answer)

PAGE = 200
"""Items of a page where all are wanted."""
RETRY_DELAYS_S = (0.1, 0.3, 0.6)
"""Waits between tries of a call that nothing answered: a person waits a second for the bad news, no longer."""
LONGEST_RETRY_AFTER_S = 30.0
"""A service that asks for a longer wait is reported instead."""
STREAM_SILENCE_S = 40.0
"""The service writes at least every 15 s: two missed pings and some more mean a dead connection."""


class Transport:
    """Calls to one service. Not tied to a thread; close it, or use it in a `with`."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        headers = {"User-Agent": "fettle-client", "Accept": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        # A proxy from the environment can't reach this machine's own loopback.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout_s, trust_env=not _is_loopback(self.url)
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        data: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """The answer to one call, below 400. `repeatable` says that a second arrival does nothing further.

        `data` and `files` make a form; `timeout_s` is for a call that takes longer than others.

        Raises:
            FettleProblem: the service refused.
            ServiceUnavailable: nothing answered.
        """
        given = {k: v for k, v in (params or {}).items() if v is not None}
        timeout = self._http.timeout if timeout_s is None else httpx.Timeout(timeout_s)
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                response = self._http.request(
                    method, path, json=json, params=given, headers=headers, data=data, files=files, timeout=timeout
                )
            except httpx.TransportError as error:
                arrived = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                if delay_s is None or (arrived and not repeatable):
                    raise ServiceUnavailable(self.url, _words(error)) from error
                time.sleep(delay_s)
                continue
            if response.status_code < 400:
                return response
            problem = FettleProblem.of(response)
            wait_s = _wait_s(response, problem, delay_s)
            if delay_s is None or wait_s is None:
                raise problem
            time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def pages(
        self, kind: type[A], path: str, params: Mapping[str, str | int | bool | Sequence[str] | None]
    ) -> Iterator[A]:
        """The items of a list, page after page; each is asked for once the one before is used up."""
        cursor: str | None = None
        while True:
            answer = self.call("GET", path, params={**params, "cursor": cursor}).json()
            for item in answer["items"]:
                yield kind.model_validate(item)
            cursor = answer.get("next_cursor")
            if cursor is None:
                return

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """An answer below 400 whose body is still to be read. Transport errors are httpx's own.

        Raises:
            FettleProblem: the service refused.
        """
        timeout = httpx.Timeout(self._http.timeout.connect or 10.0, read=STREAM_SILENCE_S)
        with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as response:
            if response.status_code >= 400:
                response.read()
                raise FettleProblem.of(response)
            yield response


def _wait_s(response: httpx.Response, problem: FettleProblem, delay_s: float | None) -> float | None:
    """How long to wait before the same call may succeed; None where it won't."""
    if problem.code == "REQUEST_IN_FLIGHT":
        # Our own first try, whose answer was lost, is still being served.
        return delay_s
    if problem.status not in {429, 503}:
        return None
    try:
        asked_s = float(response.headers.get("Retry-After", delay_s))
    except (TypeError, ValueError):
        return delay_s
    return asked_s if 0 <= asked_s <= LONGEST_RETRY_AFTER_S else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _words(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
