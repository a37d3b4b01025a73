"""`FettleClient`: one method a call of the service."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from app.client import stream
from app.client.access import AccessCalls
from app.client.datasets import DatasetCalls
from app.client.errors import FettleProblem, ServiceUnavailable
from app.client.external import ExternalCalls
from app.client.models import (
    Answer,
    Artifact,
    Event,
    MetricPoint,
    Named,
    Study,
    Trial,
    Validation,
    Worker,
)
from app.client.paths import study_path, trial_path
from app.client.results import ResultCalls
from app.client.transport import PAGE, Transport
from app.client.webhooks import WebhookCalls

DEFAULT_URL = "http://127.0.0.1:8000"
READY_POLL_S = 0.05

A = TypeVar("A", bound=Answer)


class FettleClient(ResultCalls, ExternalCalls, DatasetCalls, AccessCalls, WebhookCalls):
    """A connection to the service at `url`.

    `api_key` is needed where the service has keys; `timeout_s` limits each call, not a stream.
    A call that nothing answered is tried again where that is harmless; creations carry an `Idempotency-Key` for it.
    Every method raises `FettleProblem` where the service refuses, and `ServiceUnavailable` where nothing answers.
    """

    def __init__(self, url: str = DEFAULT_URL, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        self._transport = Transport(url, api_key, timeout_s)

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    # -- studies ------------------------------------------------------------------------------------------------------

    def validate(self, definition: Mapping[str, Any]) -> Validation:
        """The definition with all defaults, and which hyperparameters are structural; stores nothing."""
        response = self._transport.call("POST", "/v1/studies:validate", json=definition)
        return Validation.model_validate_json(response.content)

    def create_study(self, definition: Mapping[str, Any], idempotency_key: str | None = None) -> Study:
        """The new study. The same `idempotency_key` gives the same study again; by default each call has its own."""
        response = self._transport.call(
            "POST", "/v1/studies", json=definition, headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        )
        return Study.model_validate_json(response.content)

    def study(self, study: str) -> Study:
        """The study of an id."""
        return self._one(Study, study_path(study))

    def find_study(self, reference: str) -> Study:
        """The study of an id or a name."""
        try:
            return self.study(reference)
        except FettleProblem as problem:
            if problem.status not in {404, 422}:
                raise
            for study in self.studies(q=reference):
                if study.name == reference:
                    return study
            raise problem from None

    def studies(
        self,
        *,
        state: str | None = None,
        labels: Mapping[str, str] | None = None,
        q: str | None = None,
        sort: str | None = None,
    ) -> Iterator[Study]:
        """All studies that match, page by page."""
        label = [f"{key}:{value}" for key, value in (labels or {}).items()] or None
        return self._transport.pages(
            Study, "/v1/studies", {"state": state, "label": label, "q": q, "sort": sort, "limit": PAGE}
        )

    def update_study(self, study: str, patch: Mapping[str, Any], *, revision: int | None = None) -> Study:
        """The study after a merge patch; with `revision`, only if nobody changed it since."""
        headers = {"Content-Type": "application/merge-patch+json"}
        if revision is not None:
            headers["If-Match"] = f'"{revision}"'
        response = self._transport.call("PATCH", study_path(study), json=patch, headers=headers, repeatable=False)
        return Study.model_validate_json(response.content)

    def delete(self, study: str) -> None:
        """Delete a study that is over, with its trials."""
        self._transport.call("DELETE", study_path(study), repeatable=False)

    def pause(self, study: str) -> Study:
        """The study, starting no further trials until it is resumed."""
        return self._act(study, "pause")

    def resume(self, study: str) -> Study:
        """The study, running again."""
        return self._act(study, "resume")

    def stop(self, study: str) -> Study:
        """The study, finishing what runs and then ending."""
        return self._act(study, "stop")

    def cancel(self, study: str) -> Study:
        """The study, ended at once with what runs."""
        return self._act(study, "cancel")

    # -- trials -------------------------------------------------------------------------------------------------------

    def trials(
        self, study: str, *, state: str | None = None, feasible: bool | None = None, sort: str | None = None
    ) -> Iterator[Trial]:
        """All trials that match, page by page."""
        params = {"state": state, "feasible": feasible, "sort": sort, "limit": PAGE}
        return self._transport.pages(Trial, f"{study_path(study)}/trials", params)

    def trial(self, study: str, number: int) -> Trial:
        """The trial of a number."""
        return self._one(Trial, trial_path(study, number))

    def enqueue(self, study: str, hyperparameters: Mapping[str, Any], idempotency_key: str | None = None) -> Trial:
        """A new trial with these hyperparameters; the sampler draws those left out."""
        response = self._transport.call(
            "POST",
            f"{study_path(study)}/trials",
            json={"hyperparameters": hyperparameters},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return Trial.model_validate_json(response.content)

    def cancel_trial(self, study: str, number: int) -> Trial:
        """The trial, cancelled."""
        response = self._transport.call("POST", f"{trial_path(study, number)}:cancel")
        return Trial.model_validate_json(response.content)

    def metrics(self, study: str, number: int, *, attempt: int | None = None) -> list[MetricPoint]:
        """The metrics of every epoch of a trial's attempt, the current one by default."""
        return list(self._transport.pages(MetricPoint, f"{trial_path(study, number)}/metrics", {"attempt": attempt}))

    def lineage(self, study: str, number: int) -> list[Trial]:
        """A trial and those whose weights it went on from, the first one first: a schedule of hyperparameters."""
        return list(self._transport.pages(Trial, f"{trial_path(study, number)}/lineage", {}))

    def logs(self, study: str, number: int) -> str:
        """What a trial wrote."""
        return self._transport.call("GET", f"{trial_path(study, number)}/logs", headers={"Accept": "text/plain"}).text

    def artifacts(self, study: str, number: int) -> list[Artifact]:
        """The files that a trial left."""
        return list(self._transport.pages(Artifact, f"{trial_path(study, number)}/artifacts", {}))

    # -- the stream ---------------------------------------------------------------------------------------------------

    def events(self, study: str, *, after: int = 0, follow: bool = True, patience_s: float = 60.0) -> Iterator[Event]:
        """Events after number `after`, each once and in order, until the study is over.

        A dropped connection is taken up again where it broke; `ServiceUnavailable` comes after `patience_s` seconds
        in vain. Without `follow` it ends with the last event there is now.
        """
        return stream.follow(
            self._transport, f"{study_path(study)}/events", after=after, until_finished=follow, patience_s=patience_s
        )

    # -- the service --------------------------------------------------------------------------------------------------

    def families(self) -> list[Named]:
        """The model families that a definition may name."""
        return list(self._transport.pages(Named, "/v1/families", {}))

    def samplers(self) -> list[Named]:
        """The samplers that a definition may name."""
        return list(self._transport.pages(Named, "/v1/samplers", {}))

    def pruners(self) -> list[Named]:
        """The pruners that a definition may name."""
        return list(self._transport.pages(Named, "/v1/pruners", {}))

    def workers(self) -> list[Worker]:
        """The workers that the service knows."""
        return list(self._transport.pages(Worker, "/v1/workers", {}))

    def ready(self) -> bool:
        """Whether the service answers and reaches its database."""
        try:
            with self._transport.stream("/readyz"):
                return True
        except (FettleProblem, httpx.TransportError):
            return False

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Return once the service is ready.

        Raises:
            ServiceUnavailable: it was not within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if time.monotonic() > deadline:
                raise ServiceUnavailable(self.url, f"not ready within {timeout_s:g} s")
            time.sleep(READY_POLL_S)

    # -- how ----------------------------------------------------------------------------------------------------------

    def _one(self, kind: type[A], path: str) -> A:
        return kind.model_validate_json(self._transport.call("GET", path).content)

    def _act(self, study: str, verb: str) -> Study:
        response = self._transport.call("POST", f"{study_path(study)}:{verb}")
        return Study.model_validate_json(response.content)
