"""A typed Python client of the service.

    from app.client import FettleClient

    with FettleClient("http://127.0.0.1:8000") as client:
        study = client.create_study(definition)
        for event in client.events(study.id):
            print(event.seq, event.type)

Imports neither the service nor TensorFlow: it may be carried anywhere that has httpx and pydantic.
"""

from app.client.access import AuditEntry, Key, MadeKey, Project
from app.client.datasets import Dataset, DatasetColumn
from app.client.errors import ClientError, FettleProblem, ServiceUnavailable
from app.client.external import TakenTrial
from app.client.models import (
    Alive,
    Artifact,
    Asked,
    AskedTrial,
    Best,
    Event,
    Importance,
    Importances,
    Lease,
    MetricPoint,
    Named,
    Progress,
    Reset,
    Study,
    StudyEvent,
    Trial,
    TrialBest,
    TrialEvent,
    TrialFinished,
    TrialMetrics,
    TrialResumed,
    TrialRetried,
    TrialStarted,
    Validation,
    Verdict,
    Worker,
)
from app.client.service import FettleClient
from app.client.webhooks import Webhook, WebhookTest

__all__ = [
    "Alive",
    "Artifact",
    "Asked",
    "AskedTrial",
    "AuditEntry",
    "Best",
    "ClientError",
    "Dataset",
    "DatasetColumn",
    "Event",
    "FettleClient",
    "FettleProblem",
    "Importance",
    "Importances",
    "Key",
    "Lease",
    "MadeKey",
    "MetricPoint",
    "Named",
    "Progress",
    "Project",
    "Reset",
    "ServiceUnavailable",
    "Study",
    "StudyEvent",
    "TakenTrial",
    "Trial",
    "TrialBest",
    "TrialEvent",
    "TrialFinished",
    "TrialMetrics",
    "TrialResumed",
    "TrialRetried",
    "TrialStarted",
    "Validation",
    "Verdict",
    "Webhook",
    "WebhookTest",
    "Worker",
]
