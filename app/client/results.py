"""Calls about what came out of a study: its best trials, importances, plots, files, a report, a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from app.client.errors import ServiceUnavailable
from app.client.models import Importances, Trial
from app.client.paths import study_path, trial_path
from app.client.transport import Transport


class ResultCalls:
    """A part of `FettleClient`."""

    _transport: Transport

    def best(self, study: str) -> list[Trial]:
        """The best feasible trial, or the Pareto front; empty before the first one finishes."""
        answer = self._transport.call("GET", f"{study_path(study)}/best").json()
        return [Trial.model_validate(item) for item in answer["items"]]

    def importances(self, study: str, *, method: str | None = None, metric: str | None = None) -> Importances:
        """How much each searched hyperparameter explains of an objective; `method` is `fanova` or `ped_anova`."""
        params = {"method": method, "metric": metric}
        response = self._transport.call("GET", f"{study_path(study)}/importances", params=params)
        return Importances.model_validate_json(response.content)

    def plot(
        self,
        study: str,
        kind: str,
        *,
        metrics: Sequence[str] = (),
        hyperparameters: Sequence[str] = (),
        method: str | None = None,
    ) -> dict[str, Any]:
        """A plot as a Plotly figure: `plotly.graph_objects.Figure(client.plot(study, "history"))` shows it."""
        params = {"metric": list(metrics) or None, "hyperparameter": list(hyperparameters) or None, "method": method}
        path = f"{study_path(study)}/plots/{quote(kind, safe='')}"
        figure: dict[str, Any] = self._transport.call("GET", path, params=params).json()
        return figure

    def export(self, study: str, form: str = "csv") -> str:
        """All trials of a study as text: `csv` with a column for each value, or `json`."""
        return self._transport.call("GET", f"{study_path(study)}/export", params={"format": form}).text

    def stream_export(self, study: str, form: str = "parquet") -> Iterator[bytes]:
        """All trials of a study as `csv`, `json` or `parquet`, piece by piece."""
        with self._reading(f"{study_path(study)}/export", {"format": form}) as response:
            yield from response.iter_bytes()

    def download_export(self, study: str, path: Path, form: str = "parquet") -> Path:
        """`path`, written whole or not at all with all trials of a study as `csv`, `json` or `parquet`."""
        return self._download(f"{study_path(study)}/export", path, {"format": form})

    def report(self, study: str) -> str:
        """A self-contained HTML page about a study."""
        return self._transport.call("GET", f"{study_path(study)}/report", headers={"Accept": "text/html"}).text

    def recipe(self, study: str, *, trial: int | None = None) -> str:
        """A plain Keras script that trains the best trial, or another that has one, again without Fettle."""
        path = f"{study_path(study)}/best/recipe.py"
        return self._transport.call("GET", path, params={"trial": trial}, headers={"Accept": "text/x-python"}).text

    def download_artifact(self, study: str, number: int, name: str, path: Path) -> Path:
        """`path`, written whole or not at all with the artifact's bytes."""
        return self._download(f"{trial_path(study, number)}/artifacts/{quote(name, safe='')}", path, {})

    def _download(self, address: str, path: Path, params: Mapping[str, str]) -> Path:
        part = path.with_name(path.name + ".part")
        try:
            with self._reading(address, params) as response, part.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
            return part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _reading(self, address: str, params: Mapping[str, str]) -> Iterator[httpx.Response]:
        try:
            with self._transport.stream(address, params=params, headers={"Accept": "*/*"}) as response:
                yield response
        except httpx.TransportError as error:
            raise ServiceUnavailable(self._transport.url, str(error) or type(error).__name__) from error
