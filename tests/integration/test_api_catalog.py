"""What the service says of itself: its catalog, its health, its OpenAPI document, and what it refuses to be."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.api.exposure import OpenToStrangers, check_exposure
from app.domain.datasets import BUNDLED, KERAS
from app.main import create_app
from app.settings import Settings
from app.store.engine import Database

PATHS = {
    "/v1/studies": {"get", "post"},
    "/v1/studies:validate": {"post"},
    "/v1/studies/{study_id}": {"get", "patch", "delete"},
    "/v1/studies/{study_id}:pause": {"post"},
    "/v1/studies/{study_id}:resume": {"post"},
    "/v1/studies/{study_id}:stop": {"post"},
    "/v1/studies/{study_id}:cancel": {"post"},
    "/v1/studies/{study_id}/trials": {"get", "post"},
    "/v1/studies/{study_id}/trials/{number}": {"get"},
    "/v1/studies/{study_id}/trials/{number}:cancel": {"post"},
    "/v1/studies/{study_id}/trials/{number}/metrics": {"get"},
    "/v1/studies/{study_id}/trials/{number}/logs": {"get"},
    "/v1/studies/{study_id}/trials/{number}/artifacts": {"get"},
    "/v1/studies/{study_id}/trials/{number}/artifacts/{name}": {"get"},
    "/v1/studies/{study_id}/best": {"get"},
    "/v1/studies/{study_id}/export": {"get"},
    "/v1/studies/{study_id}/events": {"get"},
    "/v1/events": {"get"},
    "/v1/datasets": {"get", "post"},
    "/v1/datasets/{dataset_id}": {"get", "delete"},
    "/v1/families": {"get"},
    "/v1/samplers": {"get"},
    "/v1/pruners": {"get"},
    "/v1/workers": {"get"},
    "/v1/workers/{worker_id}:drain": {"post"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
}


def test_the_catalog_lists_what_a_definition_may_name(service: Any) -> None:
    families = {item["name"]: item for item in service.client.get("/v1/families").json()["items"]}
    assert {"mlp", "image-cnn", "function"} <= set(families)
    units = families["mlp"]["hyperparameters"]["properties"]["units"]
    assert (units["type"], units["minimum"], units["default"]) == ("integer", 1, 64)
    samplers = {item["name"]: item for item in service.client.get("/v1/samplers").json()["items"]}
    assert {"tpe", "random", "grid", "qmc"} <= set(samplers)
    assert "seed" in samplers["tpe"]["options"]["properties"]
    assert {"none", "median"} <= {item["name"] for item in service.client.get("/v1/pruners").json()["items"]}
    datasets = service.client.get("/v1/datasets").json()["items"]
    bundled = [d["name"] for d in datasets if d["origin"] == "bundled"]
    assert set(bundled) == set(BUNDLED)
    assert bundled[:5] == ["digits", "breast-cancer", "wine", "diabetes", "shapes"]
    assert {d["name"] for d in datasets if d["origin"] == "keras"} == set(KERAS)
    assert service.client.get("/v1/datasets/digits").json() == datasets[0]


def test_what_is_said_of_bundled_data_is_true() -> None:
    load = pytest.importorskip("sklearn.datasets")
    from app.domain.datasets import BUNDLED

    for name, function in (
        ("digits", load.load_digits),
        ("breast-cancer", load.load_breast_cancer),
        ("wine", load.load_wine),
        ("diabetes", load.load_diabetes),
    ):
        loaded = function()
        assert loaded.data.shape == (BUNDLED[name].rows, BUNDLED[name].features)
        classes = len(set(loaded.target)) if BUNDLED[name].task == "classification" else 0
        assert classes == BUNDLED[name].classes


def test_what_is_said_of_the_drawn_shapes_is_true_and_they_are_the_same_each_time() -> None:
    np = pytest.importorskip("numpy")
    from app.domain.datasets import BUNDLED
    from worker.training.shape_images import shapes

    images, labels = shapes()
    said = BUNDLED["shapes"]
    assert (*images.shape, 1) == (said.rows, *said.shape)
    assert np.bincount(labels).tolist() == [said.rows // said.classes] * said.classes
    assert 0.0 <= images.min() < images.max() <= 1.0
    # Drawn from a seed: another day's study sees the same images.
    assert images.mean(dtype=np.float64) == pytest.approx(0.157094, abs=1e-6)


def test_the_openapi_document_has_every_call_with_problems_and_streams(service: Any) -> None:
    document = service.client.get("/openapi.json").json()
    for path, methods in PATHS.items():
        assert methods <= set(document["paths"][path]), path
    for path in document["paths"].values():
        for operation in path.values():
            refusals = [answer for status, answer in operation["responses"].items() if not status.startswith("2")]
            assert {"422", "503", "default"} <= set(operation["responses"])
            assert all(set(answer["content"]) == {"application/problem+json"} for answer in refusals)
    stream = document["paths"]["/v1/studies/{study_id}/events"]["get"]["responses"]
    assert set(stream["200"]["content"]) == {"text/event-stream", "application/json"}
    assert "204" in stream
    schemas = document["components"]["schemas"]
    assert schemas["Study"]["properties"]["definition"] == {"$ref": "#/components/schemas/StudyDefinition"}
    references = set(_references(document))
    components = {
        f"#/components/{kind}/{name}" for kind in document["components"] for name in document["components"][kind]
    }
    assert set(references) <= components


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in _references(value)]
    return [found for value in part for found in _references(value)] if isinstance(part, list) else []


def test_readiness_needs_the_schema(serve: Any, sqlite_url: str) -> None:
    with serve(Database(sqlite_url)) as service:
        assert service.client.get("/healthz").status_code == 200
        response = service.client.get("/readyz")
        assert (response.status_code, response.json()["code"]) == (503, "UNREADY")
        assert "fettle migrate" in response.json()["detail"]
        assert service.client.get("/v1/studies").status_code in (500, 503)


def test_a_database_that_is_gone_is_a_problem_that_passes(serve: Any, postgres_database: Database) -> None:
    with serve(postgres_database) as service:
        service.create()
        service.app.state.database.dispose()
        moved = service.app.state.database.url.set(database="elsewhere")
        broken = Database(moved.render_as_string(hide_password=False))
        service.app.state.service = replace(service.app.state.service, database=broken)
        response = service.client.get("/v1/studies")
        assert (response.status_code, response.json()["code"]) == (503, "UNREADY")
        assert response.headers["retry-after"]
        assert "elsewhere" not in response.text


def test_the_service_refuses_to_be_open_to_strangers(tmp_path: Path) -> None:
    with pytest.raises(OpenToStrangers, match="FETTLE_ALLOW_OPEN"):
        create_app(Settings(data_dir=tmp_path, host="0.0.0.0"))
    check_exposure(Settings(host="0.0.0.0", allow_open=True))
    check_exposure(Settings(host="::1"))


def test_the_service_brings_neither_tensorflow_nor_optuna() -> None:
    code = (
        "import sys, app.main; bad = {'tensorflow', 'keras', 'optuna', 'numpy', 'alembic', 'worker', 'fsspec'} & "
        "set(sys.modules); sys.exit(f'imported {bad}' if bad else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
