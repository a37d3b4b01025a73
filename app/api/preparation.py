"""What a definition needs before it is stored: checked, counted and written out once, outside of any transaction.

All of it is bounded by one meter, and takes a turn (`app.api.turns`). Nothing of it can have changed when it is stored:
data sets are held then, trials of earlier studies were copied, and a study's own revision is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.api.dataset_views import known_datasets
from app.api.deps import Service
from app.api.schemas import StudyChanges
from app.api.validation import accepted, changed, sample_limit
from app.api.views import definition_of
from app.api.warm_start import WarmStarted, warm_started
from app.domain.checks.definition import Checked
from app.domain.effort import Meter
from app.domain.registry import BUILT_IN, Families
from app.domain.study import StudyDefinition
from app.store import tables
from app.store.studies import find_study
from app.store.warm_start import earlier_texts
from app.store.workers import known_families


@dataclass(frozen=True, slots=True)
class NewStudy:
    """A definition that can be stored as it is, `text`, with how many trials its sampler can draw.

    `earlier` are the trials that it learns from, as they are kept.
    """

    definition: StudyDefinition
    text: str
    sample_limit: int | None
    earlier: Sequence[str]


def checked_definition(
    api: Service, project: str, definition: StudyDefinition, meter: Meter
) -> tuple[Checked, WarmStarted]:
    """A definition with all defaults, and what it learns from earlier studies.

    Raises:
        InvalidStudy: it can't be run.
        TooExpensive: to tell takes more steps than the `meter` allows.
        Abandoned: nobody waits for it.
    """
    datasets, families = known_datasets(api, project, definition), _families(api, definition)
    checked = accepted(definition, api.settings, datasets, families=families, meter=meter)
    with api.database.read() as session:
        return checked, warm_started(session, project, checked.definition, meter)


def new_study(api: Service, project: str, definition: StudyDefinition, meter: Meter) -> NewStudy:
    """What is to be stored of a new study; raises as `checked_definition`."""
    _, warm = checked_definition(api, project, definition, meter)
    text = warm.definition.model_dump_json()
    return NewStudy(warm.definition, text, sample_limit(warm.definition, meter), earlier_texts(warm.trials))


def _families(api: Service, definition: StudyDefinition) -> Families:
    """The families that there are: the built-in ones suffice for those of theirs."""
    if definition.model.family in BUILT_IN:
        return BUILT_IN
    with api.database.read() as session:
        return known_families(session)


@dataclass(frozen=True, slots=True)
class Revision:
    """A study's definition after a change of its revision `of`; None where that changes nothing."""

    of: int
    definition: StudyDefinition | None
    text: str = ""


def revised(api: Service, study: tables.Study, changes: StudyChanges, meter: Meter) -> Revision:
    """A study after a change, as its row was read.

    Raises:
        InvalidStudy: what comes out can't be run.
        Abandoned: nobody waits for it.
    """
    present = definition_of(study)
    with api.database.read() as session:
        families = known_families(session)
    definition = changed(present, changes, api.settings, families=families, meter=meter)
    if definition == present:
        return Revision(study.revision, None)
    return Revision(study.revision, definition, definition.model_dump_json())


def found_study(api: Service, project: str, study_id: str) -> tables.Study:
    """A study's row as it is now, read for itself.

    Raises:
        NotFound: the project has none of this id.
    """
    with api.database.read() as session:
        return find_study(session, project, study_id)
