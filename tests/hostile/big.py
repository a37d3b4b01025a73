"""Studies whose definitions and trials are as large as the limits let them be."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from app.store.engine import Database
from app.store.tables import Event, Trial
from tests.integration.conftest import RunningService

FIXED = {f"note_{i}": "x" * 250 for i in range(999)}
"""Fixed hyperparameters of 250 kB together: a program's paths, prompts, tables."""
FIXED_BYTES = sum(map(len, FIXED.values()))


def external_study(**changes: Any) -> dict[str, Any]:
    """A definition for outside programs, with large fixed values and one searched hyperparameter."""
    return {
        "name": "big",
        "model": {"family": "external"},
        "hyperparameters": FIXED | {"rate": {"type": "float", "low": 0.0, "high": 1.0}},
        "objectives": [{"metric": "value"}],
        "sampler": {"name": "random", "options": {"seed": 0}},
        "budget": {"trials": 1_000},
        **changes,
    }


class Program:
    """An outside program that trains a study's trials."""

    def __init__(self, service: RunningService, **changes: Any) -> None:
        self.service = service
        answer = service.client.post("/v1/studies", json=external_study(**changes))
        assert answer.status_code == 201, answer.text
        self.study: dict[str, Any] = answer.json()
        self.path = f"/v1/studies/{self.study['id']}"

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """What the service answers below the study."""
        answer = self.service.client.get(self.path + path, params=params, headers={"Accept": "application/json"})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ask(self, count: int = 1) -> list[dict[str, Any]]:
        """Trials to train."""
        answer = self.service.client.post(f"{self.path}/trials:ask", json={"count": count, "lease_seconds": 600})
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def post(self, trial: dict[str, Any], verb: str, **body: Any) -> Any:
        """What the service answers to a holder's call."""
        body["lease_token"] = trial["lease"]["token"]
        return self.service.client.post(f"{self.path}/trials/{trial['number']}:{verb}", json=body)

    def take(self, count: int) -> list[dict[str, Any]]:
        """So many trials to train: an answer doesn't hold many of them."""
        taken: list[dict[str, Any]] = []
        while len(taken) < count:
            taken += self.ask(count - len(taken))
        return taken

    def pages(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """All pages of a list."""
        found = [self.get(path, **params)]
        while found[-1]["next_cursor"] is not None:
            found.append(self.get(path, cursor=found[-1]["next_cursor"], **params))
        return found


def stored_bytes(database: Database) -> tuple[int, int]:
    """What all trials and all events hold in their rows, in characters."""
    columns = (Trial.hyperparameters, Trial.varied, Trial.requested, Trial.sampled)
    with database.read() as session:
        trials = sum(session.scalar(select(func.sum(func.length(column)))) or 0 for column in columns)
        return trials, session.scalar(select(func.sum(func.length(Event.data)))) or 0
