"""What the linter of imports can't say: statements are written in the store alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.processes import ROOT

ALLOWED = {"Row", "Session", "DBAPIError", "OperationalError", "SQLAlchemyError", "TimeoutError", "make_url", "inspect"}
"""Of SQLAlchemy: what is passed on, what is raised, and an address that is taken apart."""
FILES = sorted(path for folder in ("api", "doctor") for path in (ROOT / "app" / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_api_and_the_doctor_have_no_sql(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("sqlalchemy")]
    assert {alias.name for one in imports for alias in one.names} <= ALLOWED
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import) and n.names[0].name.startswith("sqlalchemy")]
