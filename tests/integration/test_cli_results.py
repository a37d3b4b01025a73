"""The commands about results, against a real service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from tests.integration.test_reports import bowl


@pytest.fixture
def fettle(service: Any) -> Any:
    """`fettle(*arguments)`: what a command printed, after it left with `code`."""
    bowl(service)

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*arguments, "--url", service.url])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_importances_are_printed_as_a_table_or_json(fettle: Any) -> None:
    lines = fettle("importances", "sphere").splitlines()
    assert lines[0].split() == ["HYPERPARAMETER", "IMPORTANCE", "FOR", "value"]
    assert lines[1].startswith("x0 ")
    found = json.loads(fettle("importances", "sphere", "--json", "--method", "ped_anova"))
    assert found["method"] == "ped_anova"
    assert found["items"][0]["hyperparameter"] == "x0"


def test_a_plot_is_a_page_or_a_figure(fettle: Any, tmp_path: Path) -> None:
    page, figure = tmp_path / "history.html", tmp_path / "slice.json"
    fettle("plot", "sphere", "history", "-o", str(page))
    text = page.read_text(encoding="utf-8")
    assert "best so far" in text
    assert 'src="http' not in text
    fettle("plot", "sphere", "slice", "-o", str(figure), "--hyperparameter", "x1")
    assert json.loads(figure.read_text())["layout"]["meta"]["kind"] == "slice"
    assert "Expected a file named .html or .json" in fettle("plot", "sphere", "history", "-o", "plot.png", code=2)


def test_a_report_and_exports_are_written(fettle: Any, tmp_path: Path) -> None:
    report, trials = tmp_path / "report.html", tmp_path / "trials.parquet"
    fettle("report", "sphere", "-o", str(report))
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
    fettle("export", "sphere", "--format", "parquet", "--output", str(trials))
    content = trials.read_bytes()
    assert content[:4] == content[-4:] == b"PAR1"
    assert fettle("export", "sphere").startswith("number,state,")
    assert len(json.loads(fettle("export", "sphere", "--format", "json"))["items"]) == 42
    nowhere = str(tmp_path / "nowhere" / "trials.csv")
    assert "no such folder" in fettle("export", "sphere", "--output", nowhere, code=2)
