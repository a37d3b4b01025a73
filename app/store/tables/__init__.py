"""The tables: our only record of studies and trials.

Times are Unix seconds (float, UTC) by the database's clock. JSON is kept as text: jsonb would reorder a definition's
keys and refuse NaN. All names carry the prefix `fettle_`, since users keep other tools' tables in the same database.
"""

from app.store.tables.access import ApiKey, AuditEntry, Project
from app.store.tables.base import Base, BigId, table_of
from app.store.tables.data import StoredDataset, StudyDataset
from app.store.tables.fleet import AdvertisedFamily, Worker
from app.store.tables.log import Event, EventCounter
from app.store.tables.requests import IdempotencyKey
from app.store.tables.studies import Study, StudyAttribute, StudyLabel
from app.store.tables.trials import Artifact, Checkpoint, Metric, Trial, TrialLog
from app.store.tables.upkeep import Pruning, Restore
from app.store.tables.webhooks import Webhook

__all__ = [
    "AdvertisedFamily",
    "ApiKey",
    "Artifact",
    "AuditEntry",
    "Base",
    "BigId",
    "Checkpoint",
    "Event",
    "EventCounter",
    "IdempotencyKey",
    "Metric",
    "Project",
    "Pruning",
    "Restore",
    "StoredDataset",
    "Study",
    "StudyAttribute",
    "StudyDataset",
    "StudyLabel",
    "Trial",
    "TrialLog",
    "Webhook",
    "Worker",
    "table_of",
]
