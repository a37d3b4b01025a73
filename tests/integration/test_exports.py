"""A study's trials as CSV, JSON and Parquet: the same trials, in types that tools read."""

from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.domain.json import loads
from tests.integration.past import past


def filled(service: Any, count: int) -> dict[str, Any]:
    space = {
        "x0": {"type": "float", "low": -5.0, "high": 5.0},
        "function": {"type": "categorical", "choices": ["sphere", "rastrigin"]},
        "x1": {"type": "float", "low": 0.0, "high": 1.0, "when": {"function": ["sphere"]}},
        "delay_seconds": 0.0,
    }
    study: dict[str, Any] = service.create(hyperparameters=space, budget={"trials": 9_000})
    trials: list[dict[str, Any]] = []
    for i in range(count):
        sampled: dict[str, Any] = {"x0": i / count, "function": "sphere" if i % 2 else "rastrigin"}
        sampled |= {"x1": 0.5} if i % 2 else {}
        trials.append({"sampled": sampled, "values": [float(i)], "metrics": {"value": float(i)}, "curve": [1.0, 2.0]})
    trials[3] = {"sampled": trials[3]["sampled"], "state": "FAIL", "reason": "EXCEPTION", "error": ("Oops", 'a "b", c')}
    trials[4]["metrics"] = {"value": "Infinity", "late": 1.0}
    past(service.database, study["id"], trials)
    return study


def exported(service: Any, study: dict[str, Any], form: str, media_type: str) -> bytes:
    response = service.client.get(f"/v1/studies/{study['id']}/export", params={"format": form})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert response.headers["content-disposition"] == f'attachment; filename="sphere.{form}"'
    content: bytes = response.content
    return content


def test_parquet_has_typed_columns_for_every_trial(service: Any) -> None:
    study = filled(service, 1_203)
    file = pq.ParquetFile(io.BytesIO(exported(service, study, "parquet", "application/vnd.apache.parquet")))
    assert file.num_row_groups == 3
    table = file.read()
    assert table.schema.field("hyperparameters.x0").type == pa.float64()
    assert table.schema.field("hyperparameters.function").type == pa.string()
    assert table.schema.field("values.value").type == pa.float64()
    assert table.schema.field("feasible").type == pa.bool_()
    assert table.schema.field("created_at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.metadata[b"fettle.study"] == study["id"].encode()
    rows = table.to_pylist()
    assert [row["number"] for row in rows] == list(range(1_203))
    assert [row["hyperparameters.x1"] for row in rows[:4]] == [None, 0.5, None, 0.5]
    assert (rows[3]["state"], rows[3]["values.value"], rows[3]["error"]) == ("FAIL", None, 'Oops: a "b", c')
    assert (rows[4]["metrics.value"], rows[4]["metrics.late"], rows[5]["metrics.late"]) == (math.inf, 1.0, None)
    assert isinstance(rows[0]["created_at"], datetime)
    assert abs((datetime.now(UTC) - rows[0]["created_at"]).total_seconds()) < 600


def test_all_formats_hold_the_same_trials(service: Any) -> None:
    study = filled(service, 30)
    listed = service.client.get(f"/v1/studies/{study['id']}/trials", params={"limit": 100}).json()["items"]
    assert loads(exported(service, study, "json", "application/json").decode())["items"] == listed
    table = pq.read_table(io.BytesIO(exported(service, study, "parquet", "application/vnd.apache.parquet"))).to_pylist()
    lines = list(csv.DictReader(io.StringIO(exported(service, study, "csv", "text/csv").decode())))
    assert len(table) == len(lines) == 30
    for trial, row, line in zip(listed, table, lines, strict=True):
        assert int(line["number"]) == row["number"] == trial["number"]
        assert float(line["hyperparameters.x0"]) == row["hyperparameters.x0"] == trial["hyperparameters"]["x0"]
        assert line["state"] == row["state"] == trial["state"]
        assert row["duration_seconds"] == trial["duration_seconds"]


def test_a_study_without_trials_exports_no_rows(service: Any) -> None:
    study = service.create()
    table = pq.read_table(io.BytesIO(exported(service, study, "parquet", "application/vnd.apache.parquet")))
    assert table.num_rows == 0
    assert "hyperparameters.x0" in table.column_names


def test_openapi_says_what_the_results_are(service: Any) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]

    def types(path: str) -> set[str]:
        return set(paths[f"/v1/studies/{{study_id}}/{path}"]["get"]["responses"]["200"]["content"])

    assert types("export") == {"text/csv", "application/json", "application/vnd.apache.parquet"}
    assert types("report") == {"text/html"}
    assert types("best/recipe.py") == {"text/x-python"}
    assert types("plots/{kind}") == types("importances") == {"application/json"}
