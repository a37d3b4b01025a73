"""Families of plugins and lists of layers through the API: what is known, accepted, waited for and refused."""

from __future__ import annotations

from typing import Any

from app.plugins import FamilyPlugin, Metric, float_parameter, int_parameter
from app.store import workers
from app.store.workers import Offer, advertise

PLUGIN = FamilyPlugin(
    name="own",
    version="1",
    description="A family of somebody's.",
    builder="a.b:c",
    hyperparameters=(int_parameter("width", 8, 1, 64, "Units."), float_parameter("drop", 0.1, 0.0, 0.9, "Rate.")),
    tasks=("classification",),
    metrics=(Metric("top3", "maximize", "a.b:d"),),
)
OWN: dict[str, Any] = {
    "name": "own",
    "model": {"family": "own"},
    "dataset": {"name": "digits"},
    "hyperparameters": {"width": {"type": "int", "low": 2, "high": 8}},
    "objectives": [{"metric": "val_top3", "direction": "maximize"}],
    "budget": {"trials": 5},
}
LAYERS: dict[str, Any] = {
    "name": "layers",
    "model": {
        "family": "keras-layers",
        "layers": [
            {"layer": "Dense", "units": {"hyperparameter": "units"}, "repeat": {"hyperparameter": "blocks"}},
            {"layer": "Dropout", "rate": {"hyperparameter": "rate"}, "when": {"drops": [True]}},
        ],
    },
    "dataset": {"name": "wine"},
    "hyperparameters": {
        "units": {"type": "int", "low": 2, "high": 8},
        "blocks": 2,
        "drops": {"type": "categorical", "choices": [True, False]},
        "rate": {"type": "float", "low": 0.1, "high": 0.5, "when": {"drops": [True]}},
    },
    "objectives": [{"metric": "val_loss"}],
    "budget": {"trials": 5},
}


def join(service: Any, name: str, version: str | None) -> None:
    """A worker with the plugin in a version, or without it."""
    versions = {"mlp": "1"} if version is None else {"own": version}
    plugin = FamilyPlugin(**{f: getattr(PLUGIN, f) for f in PLUGIN.__dataclass_fields__} | {"version": version or "1"})

    def work(session: Any) -> None:
        workers.register_worker(session, name, "host", 1, Offer("cpu", [*versions], {}, versions=versions))
        if version is not None:
            advertise(session, [plugin.family()])

    service.database.run(work)


def test_a_family_that_a_worker_advertised_is_known_accepted_and_waited_for(service: Any) -> None:
    post, get = service.client.post, service.client.get
    refused = post("/v1/studies", json=OWN)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"] == ["model", "family"]

    join(service, "a", "1")
    listed = next(f for f in get("/v1/families").json()["items"] if f["name"] == "own")
    assert (listed["version"], listed["built_in"], listed["workers"]) == ("1", False, 1)
    assert listed["metrics"] == [{"name": "top3", "direction": "maximize", "description": ""}]
    assert {"width", "optimizer", "batch_size"} <= set(listed["structural"])
    assert {"drop", "learning_rate", "l2"} <= set(listed["runtime"])
    assert listed["hyperparameters"]["properties"]["width"]["maximum"] == 64

    created = post("/v1/studies", json=OWN)
    assert created.status_code == 201, created.text
    study = created.json()
    assert study["definition"]["model"] == {"family": "own", "version": "1"}
    assert study["definition"]["hyperparameters"]["drop"] == 0.1
    assert study["pending_reason"] is None

    # A newer version counts for new studies; the old one's still want theirs.
    join(service, "b", "2")
    newer = post("/v1/studies", json=OWN | {"name": "newer"}).json()
    assert newer["definition"]["model"]["version"] == "2"
    pinned = post("/v1/studies", json=OWN | {"name": "pinned", "model": {"family": "own", "version": "1"}})
    assert pinned.json()["definition"]["model"]["version"] == "1"
    with service.database.write() as session:
        workers.set_worker_state(session, "a", "STOPPED")
    reason = get(f"/v1/studies/{study['id']}").json()["pending_reason"]
    assert reason == "No live worker offers version '1' of the family 'own'; those with the family have 2."
    with service.database.write() as session:
        workers.set_worker_state(session, "b", "STOPPED")
    assert post("/v1/studies", json=OWN | {"name": "later"}).json()["pending_reason"].startswith("No live worker")

    changed = service.client.patch(f"/v1/studies/{study['id']}", json={"budget": {"trials": 7}})
    assert changed.status_code == 200, changed.text


def test_a_plugins_declaration_binds_its_studies(service: Any) -> None:
    join(service, "a", "1")
    cases: list[tuple[dict[str, Any], list[Any]]] = [
        ({"model": {"family": "own", "version": "9"}}, ["model", "version"]),
        ({"model": {"family": "own", "layers": [{"layer": "Flatten"}]}}, ["model", "layers"]),
        ({"hyperparameters": {"width": 65}}, ["hyperparameters", "width"]),
        ({"hyperparameters": {"height": 6}}, ["hyperparameters", "height"]),
        (
            {"hyperparameters": {"drop": {"type": "float", "low": 0.0, "high": 1.0}}},
            ["hyperparameters", "drop", "high"],
        ),
        ({"dataset": {"name": "diabetes"}}, ["dataset", "name"]),
        ({"objectives": [{"metric": "val_top5"}]}, ["objectives", 0, "metric"]),
    ]
    for changes, loc in cases:
        response = service.client.post("/v1/studies", json=OWN | changes)
        assert response.status_code == 422
        assert loc in [error["loc"] for error in response.json()["errors"]]
    minimised = OWN | {"objectives": [{"metric": "val_top3", "direction": "minimize"}]}
    assert (
        "usually it is maximized" in service.client.post("/v1/studies:validate", json=minimised).json()["warnings"][0]
    )


def test_a_list_of_layers_is_validated_with_what_costs_a_program(service: Any) -> None:
    answer = service.client.post("/v1/studies:validate", json=LAYERS).json()
    assert answer["definition"]["model"]["input"] == "vector"
    assert {"units", "blocks", "drops", "optimizer"} <= set(answer["structural"])
    assert {"rate", "learning_rate", "l1"} <= set(answer["runtime"])
    assert (answer["stackable"], answer["warnings"]) == (True, [])
    study = service.client.post("/v1/studies", json=LAYERS).json()
    assert study["definition"]["model"]["layers"] == LAYERS["model"]["layers"]
    trial = service.client.post(f"/v1/studies/{study['id']}/trials", json={"hyperparameters": {"units": 3}})
    assert trial.status_code == 201
    refused = service.client.post(f"/v1/studies/{study['id']}/trials", json={"hyperparameters": {"units": 9}})
    assert refused.status_code == 422


def test_layers_that_fit_in_some_trials_are_accepted(service: Any) -> None:
    pool = {"layer": "MaxPooling2D", "repeat": {"hyperparameter": "pools"}}
    definition = LAYERS | {
        "dataset": {"name": "digits"},
        "model": {"family": "keras-layers", "layers": [pool]},
        "hyperparameters": {"pools": {"type": "int", "low": 0, "high": 5}},
    }
    assert service.client.post("/v1/studies:validate", json=definition).status_code == 200


def test_the_catalog_tells_the_layers_that_a_list_may_have(service: Any) -> None:
    listed = next(f for f in service.client.get("/v1/families").json()["items"] if f["name"] == "keras-layers")
    dense, dropout = listed["layers"]["Dense"], listed["layers"]["Dropout"]
    assert dense["required"] == ["units"]
    assert dense["properties"]["units"]["hyperparameter"] == "structural"
    assert dropout["properties"]["rate"]["hyperparameter"] == "runtime"
    assert "Lambda" not in listed["layers"]
