"""What the docs say that a program can check: their tables, definitions, settings, commands and links."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from app.api.validation import accepted
from app.cli import COMMANDS
from app.data.assembly import read_dataset
from app.data.limits import DataLimits
from app.data.reading import Reading
from app.domain.datasets import BUILT_IN, Dataset
from app.domain.registry import BUILT_IN as FAMILIES
from app.domain.study import StudyDefinition
from app.settings import Settings
from docs import tables

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
JSON_BLOCK = re.compile(r"^```json\n(.*?)^```", re.DOTALL | re.MULTILINE)
POSTED = re.compile(r"-d '(\{.*?\})'", re.DOTALL)
OTHER_VARIABLES = {
    "FETTLE_URL",
    "FETTLE_API_KEY",
    "FETTLE_PUBLISHED_PORT",
    "FETTLE_WEBHOOK_SECRET",
    "FETTLE_TEST_EXAMPLES",
}
"""Variables of the client commands and of the compose file: they are no settings of the service."""
OTHER_COMMANDS = {"version", "datasets", "keys", "projects", "webhooks"}
UPLOADS = {"customers": "left"}
"""The tables among the examples, and what is predicted of each."""


def _definitions() -> Iterator[Any]:
    for example in sorted((ROOT / "examples").glob("*.json")):
        yield pytest.param(json.loads(example.read_text("utf-8")), id=example.name)
    for page in PAGES:
        text = page.read_text("utf-8")
        for i, found in enumerate([*JSON_BLOCK.findall(text), *POSTED.findall(text)]):
            value = json.loads(found)
            if isinstance(value, dict) and "model" in value:
                yield pytest.param(value, id=f"{page.name}-{i}")


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_tables_say_what_the_code_says(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text == tables.renewed(text), "stale: run python docs/tables.py"


def test_every_table_is_on_a_page() -> None:
    shown = {m["name"] for page in tables.PAGES for m in tables.BLOCK.finditer(page.read_text("utf-8"))}
    assert shown == set(tables.TABLES)


@cache
def _uploads() -> dict[str, Dataset]:
    """The files that come with the examples, as they are understood when they are uploaded."""
    found = {}
    for name, target in UPLOADS.items():
        path, reading = ROOT / "examples" / f"{name}.csv", Reading(format="csv", target=target)
        normal = read_dataset(path, reading, DataLimits(), name=name, description="", origin="upload")
        found[name] = normal.dataset
    return found


@pytest.mark.parametrize("definition", list(_definitions()))
def test_definitions_in_docs_and_examples_can_be_run(definition: dict[str, Any]) -> None:
    datasets = {**BUILT_IN, **_uploads()}
    checked = accepted(StudyDefinition.model_validate(definition), Settings(), datasets, families=FAMILIES)
    assert not checked.errors
    assert not checked.warnings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_variables_that_docs_name_are_settings(page: Path) -> None:
    known = {f"FETTLE_{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    named = set(re.findall(r"FETTLE_[A-Z_]*[A-Z](?![A-Z_])", page.read_text("utf-8")))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_docs_name_exist(page: Path) -> None:
    known = {command.__name__ for command in COMMANDS} | OTHER_COMMANDS
    named = set(re.findall(r"(?:^|`|/|\| )fettle ([a-z]+)\b", page.read_text("utf-8"), re.MULTILINE))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if heading:
            assert heading in _anchors(linked.read_text("utf-8")), target


def _anchors(text: str) -> set[str]:
    """The anchors that a page's headings get, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
