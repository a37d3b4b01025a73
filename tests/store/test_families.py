"""Families that workers advertise, and studies that wait for the version that they were made for; on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from app.domain.registry import BUILT_IN
from app.domain.study import ModelSpec, StudyDefinition
from app.plugins import FamilyPlugin, Metric, int_parameter
from app.store import lifecycle, workers
from app.store.engine import Database
from app.store.tables import Study
from app.store.workers import Offer, advertise, known_families
from tests.store.conftest import definition

PLUGIN = FamilyPlugin(
    name="own",
    version="1",
    description="One.",
    builder="a.b:c",
    hyperparameters=(int_parameter("units", 8, 1, 64, "Units."),),
    metrics=(Metric("top3", "maximize", "a.b:d"),),
)


def families(database: Database) -> Any:
    with database.read() as session:
        return known_families(session)


def test_what_a_worker_advertises_is_known_from_then_on(database: Database) -> None:
    assert families(database).names == BUILT_IN.names
    database.run(lambda session: advertise(session, [PLUGIN.family()]))
    assert families(database).get("own") == PLUGIN.family()


def test_the_version_that_came_last_counts_and_the_others_stay_known(database: Database) -> None:
    one, two = PLUGIN.family(), replace(PLUGIN, version="2", description="Two.").family()
    for family in (one, two):
        database.run(lambda session, family=family: advertise(session, [family]))
    assert families(database).get("own") == two
    assert families(database).get("own", "1") == one
    assert families(database).versions("own") == ["1", "2"]
    renewed = replace(PLUGIN, description="Again.").family()
    database.run(lambda session: advertise(session, [renewed]))
    assert families(database).get("own") == renewed
    assert families(database).get("own", "2") == two


def test_a_study_waits_for_a_worker_with_its_version(database: Database) -> None:
    made = StudyDefinition.model_validate(
        definition().model_dump() | {"model": ModelSpec(family="own", version="1").model_dump()}
    )
    study_id = database.run(
        lambda session: lifecycle.create_study(session, made, project="default", created_by=None, sample_limit=None).id
    )

    def reason() -> str | None:
        with database.read() as session:
            study = session.get(Study, study_id)
            assert study is not None
            return workers.pending_reason(study, workers.live_offers(session), {})

    def claimed(offer: Offer) -> list[int]:
        with database.read() as session:
            return [c.study_id for c in workers.claimable(session, offer)]

    def join(name: str, versions: dict[str, str]) -> Offer:
        offer = Offer("cpu", [*versions], {}, versions=versions)

        def register(session: Session) -> None:
            workers.register_worker(session, name, "host", 1, offer)

        database.run(register)
        return offer

    other = join("a", {"mlp": "1"})
    assert (claimed(other), reason()) == ([], "No live worker offers the family 'own'.")
    newer = join("b", {"own": "2", "mlp": "1"})
    assert claimed(newer) == []
    assert reason() == "No live worker offers version '1' of the family 'own'; those with the family have 2."
    able = join("c", {"own": "1"})
    assert (claimed(able), reason()) == ([study_id], None)
    # A worker whose trainer can't build it takes it back.
    database.run(lambda session: workers.set_offer(session, "c", Offer("cpu", [], {})))
    assert "version '1'" in str(reason())


def test_a_study_from_before_versions_were_kept_takes_any(database: Database) -> None:
    database.run(
        lambda session: (
            lifecycle.create_study(session, definition(), project="default", created_by=None, sample_limit=None).id
        )
    )
    with database.read() as session:
        assert len(workers.claimable(session, Offer("cpu", ["function"], {}, versions={"function": "9"}))) == 1
