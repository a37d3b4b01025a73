"""Answers about a study's trials, as JSON texts: what a child process computes (see `app.compute`).

The child opens the database itself, and only reads. It keeps outlines of the studies that it was asked about.
"""

from __future__ import annotations

import traceback
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.domain.json import dumps
from app.errors import FettleError, NotFound, Unready
from app.store.engine import Database, is_transient
from app.tuning.questions import Answer, Question
from app.tuning.snapshot import Snapshot, Snapshots

if TYPE_CHECKING:
    from app.tuning.importances import Importances

FAULT = "This could not be computed: the service met an error of its own. Its log has the traceback."


def has_forests() -> bool:
    """Whether importances by fANOVA can be told here: they need scikit-learn."""
    return find_spec("sklearn") is not None


@cache
def _snapshots(database_url: str) -> Snapshots:
    return Snapshots(Database(database_url))


def answers(database_url: str, study_id: int, questions: tuple[Question, ...]) -> list[Answer]:
    """What the trials of the study with this row id answer, each question by itself: one that fails has a `fault`.

    Raises:
        NotFound: the study was deleted, or is plain Optuna's, which has no definition.
        LibraryMissing: importances by fANOVA without scikit-learn.
        Unready: the database doesn't answer.
    """
    try:
        snapshot = _snapshots(database_url).take(study_id)
        return [answer(snapshot, question) for question in questions]
    except LookupError:
        raise NotFound("Expected a study of the service. It is gone.", code="STUDY_NOT_FOUND") from None
    except (DBAPIError, PoolTimeout) as error:
        if isinstance(error, DBAPIError) and not is_transient(error):
            raise
        raise Unready("Expected a database that answers. Received: none. Try again in a moment.") from None


def answer(snapshot: Snapshot, question: Question) -> Answer:
    """What a snapshot answers to one question.

    Raises:
        LibraryMissing: importances by fANOVA without scikit-learn.
        sqlalchemy.exc.SQLAlchemyError: the database doesn't answer.
    """
    try:
        return _told(snapshot, question)
    except (FettleError, MemoryError, DBAPIError, PoolTimeout):
        raise
    except Exception:  # noqa: BLE001 - one part that fails leaves the others standing; the service logs it
        return _failed(snapshot, question, traceback.format_exc())


def _told(snapshot: Snapshot, question: Question) -> Answer:
    # Not at the top: the API process names this module to its children, and Optuna takes seconds to import.
    from app.tuning.figures import drawing_of, figure
    from app.tuning.importances import importances

    if question.kind is None:
        wanted = question.wanted
        metric = wanted.metrics[0] if wanted.metrics else snapshot.metrics[0]
        found = importances(snapshot, metric, wanted.method or "fanova")
        return Answer(dumps(_importances_content(found)), found.reason)
    drawing = drawing_of(snapshot, question.kind, question.wanted)
    return Answer(dumps(figure(drawing, snapshot, question.kind)), drawing.reason, tuple(drawing.notes))


def _failed(snapshot: Snapshot, question: Question, fault: str) -> Answer:
    from app.tuning.figures import Drawing, figure
    from app.tuning.importances import Importances

    wanted = question.wanted
    if question.kind is None:
        metric = wanted.metrics[0] if wanted.metrics else snapshot.metrics[0]
        found = Importances(wanted.method or "fanova", metric, len(snapshot.complete), {}, FAULT)
        return Answer(dumps(_importances_content(found)), FAULT, fault=fault)
    return Answer(dumps(figure(Drawing(question.kind, reason=FAULT), snapshot, question.kind)), FAULT, fault=fault)


def _importances_content(found: Importances) -> dict[str, Any]:
    """Importances as the API answers them."""
    items = [{"hyperparameter": name, "importance": share} for name, share in found.items.items()]
    return {
        "items": items,
        "next_cursor": None,
        "method": found.method,
        "metric": found.metric,
        "trials": found.trials,
        "reason": found.reason,
    }
