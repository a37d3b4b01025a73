"""Training trials outside the service: ask for them, report on them, tell how they went."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.client.models import Alive, Asked, AskedTrial, Trial, Verdict
from app.client.paths import study_path, trial_path
from app.client.transport import Transport


@dataclass(frozen=True)
class TakenTrial:
    """A trial that this program holds: report on it, then tell its end once.

    Every method raises `FettleProblem` with the code LEASE_LOST where the trial is no longer this program's.
    """

    client: ExternalCalls
    study: str
    number: int
    attempt: int
    hyperparameters: dict[str, Any]
    lease_token: str

    def report(self, epoch: int, metrics: Mapping[str, float]) -> Verdict:
        """Record an epoch's metrics, counted from 0; whether to prune the trial or to stop it now."""
        return self.client.report_metrics(self.study, self.number, self.lease_token, epoch, metrics)

    def heartbeat(self) -> Alive:
        """Renew the lease where nothing is to report for long; whether to stop."""
        return self.client.heartbeat(self.study, self.number, self.lease_token)

    def complete(self, values: Mapping[str, float] | None = None) -> Trial:
        """Tell that it is done; without `values` those of the selected epoch that was reported count."""
        return self.client.tell(self.study, self.number, self.lease_token, "COMPLETE", values)

    def prune(self) -> Trial:
        """Tell that it was given up early, as a report had asked for."""
        return self.client.tell(self.study, self.number, self.lease_token, "PRUNED")

    def fail(self, message: str, code: str = "EXCEPTION") -> Trial:
        """Tell that it failed. A `code` such as OUT_OF_MEMORY or NON_FINITE teaches the sampler to keep away."""
        error = {"code": code, "message": message}
        return self.client.tell(self.study, self.number, self.lease_token, "FAIL", error=error)


class ExternalCalls:
    """The calls of programs that train trials of the family `external`."""

    _transport: Transport

    def ask(
        self,
        study: str,
        *,
        count: int = 1,
        lease_seconds: float = 60.0,
        worker: str = "external",
        idempotency_key: str | None = None,
    ) -> Asked:
        """Up to `count` trials of a study, each held for `lease_seconds` after its last sign of life."""
        response = self._transport.call(
            "POST",
            f"{study_path(study)}/trials:ask",
            json={"count": count, "lease_seconds": lease_seconds, "worker": worker},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return Asked.model_validate_json(response.content)

    def heartbeat(self, study: str, number: int, lease_token: str) -> Alive:
        """Renew the lease of a trial."""
        return Alive.model_validate_json(self._post(study, number, "heartbeat", {"lease_token": lease_token}))

    def report_metrics(
        self, study: str, number: int, lease_token: str, epoch: int, metrics: Mapping[str, float]
    ) -> Verdict:
        """Record the metrics of an epoch, counted from 0; what to do next."""
        body = {"lease_token": lease_token, "epoch": epoch, "metrics": _encoded(metrics)}
        return Verdict.model_validate_json(self._post(study, number, "report", body))

    def tell(
        self,
        study: str,
        number: int,
        lease_token: str,
        state: str,
        values: Mapping[str, float] | None = None,
        error: Mapping[str, str] | None = None,
    ) -> Trial:
        """Record how a trial ended: COMPLETE, PRUNED or FAIL."""
        body: dict[str, Any] = {"lease_token": lease_token, "state": state, "values": _encoded(values or {})}
        if error is not None:
            body["error"] = dict(error)
        return Trial.model_validate_json(self._post(study, number, "tell", body))

    def take(
        self,
        study: str,
        *,
        lease_seconds: float = 60.0,
        worker: str = "external",
        sleep: Callable[[float], object] = time.sleep,
    ) -> Iterator[TakenTrial]:
        """Trials to train, one after the other, until the study gives no more; waits while others hold the last."""
        while True:
            asked = self.ask(study, lease_seconds=lease_seconds, worker=worker)
            for trial in asked.items:
                yield _taken(self, study, trial)
            if not asked.items:
                if asked.retry_after_seconds is None:
                    return
                sleep(asked.retry_after_seconds)

    def _post(self, study: str, number: int, verb: str, body: Mapping[str, Any]) -> bytes:
        return self._transport.call("POST", f"{trial_path(study, number)}:{verb}", json=body).content


def _taken(client: ExternalCalls, study: str, trial: AskedTrial) -> TakenTrial:
    return TakenTrial(client, study, trial.number, trial.attempt, trial.hyperparameters, trial.lease.token)


def _encoded(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Numbers as the contract writes them: those that are not finite as strings."""
    words = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return {k: v if math.isfinite(v) else words.get(v, "NaN") for k, v in metrics.items()}
