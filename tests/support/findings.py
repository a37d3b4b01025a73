"""Ways to ask the doctor in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app import doctor
from app.doctor import Examination, Finding, Status
from app.doctor.database import reached, schema
from app.doctor.devices import device_here
from app.settings import Settings
from app.store.engine import Database
from tests.store.conftest import Bench, make_bench, make_sqlite_bench  # noqa: F401

QUICK = tuple(group for group in doctor.GROUPS if group is not device_here)


def settings_of(database: Database, data_dir: Path, **changes: Any) -> Settings:
    url = database.url.render_as_string(hide_password=False)
    return Settings(data_dir=data_dir, database_url=url, **changes)


def findings(settings: Settings, *groups: doctor.Check) -> dict[str, Finding]:
    """What these checks say, by name; the database is looked at first, as always."""
    examination = Examination(settings)
    try:
        return {f.check: f for group in (reached, schema, *groups) for f in group(examination)}
    finally:
        examination.close()


def bad(found: dict[str, Finding]) -> dict[str, Status]:
    assert all(f.advice for f in found.values() if f.status is not Status.OK)
    return {name: f.status for name, f in found.items() if f.status is not Status.OK}
