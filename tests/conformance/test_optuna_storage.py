"""Optuna's own conformance suite, against our tables on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from app.store.engine import Database
from app.tuning.storage import StudyStorage


class TestStudyStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, database: Database) -> Iterator[StudyStorage]:
        storage = StudyStorage(database.url.render_as_string(hide_password=False))
        yield storage
        storage.close()
