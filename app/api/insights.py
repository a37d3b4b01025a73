"""What a study's trials tell: importances of hyperparameters, and plots.

Answers are kept until another trial finishes. Few are computed at a time, each in a turn: they are Python that would
slow everything else down.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from fastapi import Query, Response

from app.api import schemas
from app.api.access import needs
from app.api.answers import JSON
from app.api.deps import Api, Project
from app.api.problems import invalid_request
from app.api.routing import router as make_router
from app.domain.json import dumps, loads
from app.errors import FieldError, NotFound
from app.store import tables
from app.store.studies import find_study

if TYPE_CHECKING:
    from app.store.engine import Database
    from app.tuning.snapshot import Snapshot, Snapshots

from app.domain.access import Scope

router = make_router("results")

KEPT_ANSWERS = 128
"""Figures and importances kept in memory; a figure of 2,000 trials takes up to a megabyte."""

Method = Literal["fanova", "ped_anova"]
METHODS: tuple[Method, ...] = get_args(Method)
MethodQuery = Annotated[Method, Query(description="How importances are told: see docs/results.md.")]
MetricQuery = Annotated[str | None, Query(max_length=64, description="An objective; the first where it is left out.")]


class Insights:
    """What was computed of studies, kept while it holds. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshots: Snapshots | None = None
        self._kept: OrderedDict[Hashable, str] = OrderedDict()
        self._lock = threading.Lock()

    def text(self, study: tables.Study, what: Hashable, compute: Callable[[Snapshot], Any], *, live: bool) -> str:
        """The JSON text of `compute` on the study's trials. `what` names it; `live` says that running trials matter.

        Raises:
            NotFound: the study was deleted meanwhile.
        """
        key = (study.id, study.finished_count, what)
        keeps = not (live and study.running)
        with self._lock:
            if keeps and key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        text = dumps(compute(self.snapshot(study)))
        if keeps:
            with self._lock:
                self._kept[key] = text
                while len(self._kept) > KEPT_ANSWERS:
                    self._kept.popitem(last=False)
        return text

    def snapshot(self, study: tables.Study) -> Snapshot:
        """The study's trials now.

        Raises:
            NotFound: the study was deleted, or is plain Optuna's, which has no definition.
        """
        from app.tuning.snapshot import Snapshots

        with self._lock:
            self._snapshots = self._snapshots or Snapshots(self._database)
        try:
            return self._snapshots.take(study.id)
        except LookupError:
            raise NotFound("Expected a study of the service. It is gone.", code="STUDY_NOT_FOUND") from None


@router.get("/v1/studies/{study_id:id}/importances", response_model=schemas.Importances)
@needs(Scope.READ)
async def get_importances(
    study_id: str, api: Api, project: Project, method: MethodQuery = "fanova", metric: MetricQuery = None
) -> Response:
    """How much each searched hyperparameter explains of an objective; no items, and why, where nothing can be said."""

    def work() -> str:
        study = _study(api.database, project, study_id)
        return importances_text(api.insights, study, metric, method)

    return Response(await api.turns.run(work), media_type=JSON)


def importances_text(insights: Insights, study: tables.Study, metric: str | None, method: Method) -> str:
    """`schemas.Importances` of a study as JSON text.

    Raises:
        Invalid: the metric is no objective of the study.
    """
    metrics = loads(study.objective_metrics)
    chosen = metrics[0] if metric is None else metric
    if chosen not in metrics:
        text = f"Expected an objective of the study: {', '.join(metrics)}. Received: {chosen!r}"
        raise invalid_request([FieldError(("query", "metric"), text)])

    def compute(snapshot: Snapshot) -> dict[str, Any]:
        from app.tuning.importances import importances

        found = importances(snapshot, chosen, method)
        items = [{"hyperparameter": name, "importance": share} for name, share in found.items.items()]
        return {
            "items": items,
            "next_cursor": None,
            "method": method,
            "metric": chosen,
            "trials": found.trials,
            "reason": found.reason,
        }

    return insights.text(study, ("importances", chosen, method), compute, live=False)


@router.get(
    "/v1/studies/{study_id:id}/plots/{kind:id}",
    responses={200: {"description": "A Plotly figure.", "content": {JSON: {"schema": schemas.FIGURE}}}},
)
@needs(Scope.READ)
async def get_plot(
    study_id: str,
    kind: str,
    api: Api,
    project: Project,
    metric: Annotated[
        list[str] | None, Query(max_length=3, description="An objective; two or three for `pareto`.")
    ] = None,
    hyperparameter: Annotated[
        list[str] | None, Query(max_length=24, description="Axes of `parallel`, `slice` and `contour`.")
    ] = None,
    method: Annotated[Method | None, Query(description="Of `importances`; fanova where it is left out.")] = None,
) -> Response:
    """A plot of the study as a Plotly figure: `history intermediate parallel slice contour edf timeline importances
    pareto`.
    """

    def work() -> str:
        study = _study(api.database, project, study_id)
        return figure_text(api.insights, study, kind, tuple(metric or ()), tuple(hyperparameter or ()), method)

    return Response(await api.turns.run(work), media_type=JSON)


def figure_text(
    insights: Insights,
    study: tables.Study,
    kind: str,
    metrics: tuple[str, ...] = (),
    hyperparameters: tuple[str, ...] = (),
    method: Method | None = None,
) -> str:
    """A figure of a study as JSON text.

    Raises:
        NotFound: there are no plots of this kind.
        Invalid: the study has none, or not of what is asked.
    """
    from app.tuning.figures import KINDS, Wanted, figure

    wanted = Wanted(metrics, hyperparameters, method)
    found = next((known for known in KINDS if known == kind), None)
    if found is None:
        raise NotFound(f"Expected a plot among: {', '.join(KINDS)}. Received: {kind[:100]!r}", code="PLOT_NOT_FOUND")
    live = found in {"intermediate", "timeline"}
    return insights.text(study, (found, wanted), lambda snapshot: figure(snapshot, found, wanted), live=live)


def _study(database: Database, project: str, study_id: str) -> tables.Study:
    with database.read() as session:
        return find_study(session, project, study_id)
