"""Bodies that the OpenAPI document shows as examples: each is accepted as it stands."""

from __future__ import annotations

from typing import Any

RATE = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}
DEFINITIONS: dict[str, dict[str, Any]] = {
    "network": {
        "summary": "A small network on handwritten digits",
        "value": {
            "name": "digits-mlp",
            "model": {"family": "mlp"},
            "dataset": {"name": "digits"},
            "hyperparameters": {
                "units": {"type": "int", "low": 32, "high": 128, "step": 32},
                "dropout": 0.1,
                "learning_rate": RATE,
            },
            "training": {"epochs": 10},
            "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
            "sampler": {"name": "tpe", "options": {"seed": 0}},
            "pruner": {"name": "median"},
            "budget": {"trials": 60},
        },
    },
    "function": {
        "summary": "A test function, without data and training",
        "value": {
            "name": "sphere",
            "model": {"family": "function"},
            "hyperparameters": {"function": "sphere", "x0": {"type": "float", "low": -5.0, "high": 5.0}},
            "objectives": [{"metric": "value"}],
            "budget": {"trials": 20},
        },
    },
    "external": {
        "summary": "Trials that your own program trains",
        "value": {
            "name": "my-training",
            "model": {"family": "external"},
            "hyperparameters": {
                "learning_rate": RATE,
                "schedule": {"type": "categorical", "choices": ["constant", "cosine"]},
            },
            "objectives": [{"metric": "loss"}],
            "budget": {"trials": 100},
        },
    },
}
EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "POST /v1/studies": DEFINITIONS,
    "POST /v1/studies:validate": DEFINITIONS,
    "PATCH /v1/studies/{study_id}": {
        "budget": {"summary": "A larger budget", "value": {"budget": {"trials": 120}}},
        "words": {"summary": "Words", "value": {"description": "The second try.", "labels": {"team": "vision"}}},
        "execution": {"summary": "Fewer at once", "value": {"execution": {"parallel_trials": 2, "priority": 5}}},
    },
    "POST /v1/studies/{study_id}/trials": {"drawn": {"summary": "All is drawn", "value": {"hyperparameters": {}}}},
    "POST /v1/studies/{study_id}/trials:ask": {
        "two": {"summary": "Two trials", "value": {"count": 2, "lease_seconds": 60, "worker": "gpu-7"}}
    },
    "POST /v1/studies/{study_id}/trials/{number}:heartbeat": {
        "held": {"summary": "A sign of life", "value": {"lease_token": "4fb1…"}}
    },
    "POST /v1/studies/{study_id}/trials/{number}:report": {
        "epoch": {"summary": "An epoch", "value": {"lease_token": "4fb1…", "epoch": 0, "metrics": {"loss": 0.25}}}
    },
    "POST /v1/studies/{study_id}/trials/{number}:tell": {
        "complete": {
            "summary": "The end",
            "value": {"lease_token": "4fb1…", "state": "COMPLETE", "values": {"loss": 0.25}},
        },
        "failed": {
            "summary": "A failure",
            "value": {"lease_token": "4fb1…", "state": "FAIL", "error": {"code": "OUT_OF_MEMORY", "message": "8 GB"}},
        },
    },
    "POST /v1/keys": {
        "notebook": {
            "summary": "A key for a notebook, for 30 days",
            "value": {"name": "notebook", "scopes": ["read", "submit"], "expires_in_seconds": 2_592_000},
        }
    },
    "POST /v1/keys/{key_id}:rotate": {
        "graceful": {"summary": "The secret before stays good for a day", "value": {"grace_seconds": 86_400}}
    },
    "POST /v1/projects": {
        "vision": {
            "summary": "A project with quotas",
            "value": {"name": "vision", "description": "Images", "max_studies": 200, "max_running_trials": 8},
        }
    },
    "PATCH /v1/projects/{name}": {
        "quotas": {
            "summary": "More trials at once, as much space as there is",
            "value": {"max_running_trials": 16, "max_stored_bytes": None},
        }
    },
    "POST /v1/webhooks": {
        "ends": {
            "summary": "Told when studies end",
            "value": {"url": "https://hooks.example.com/fettle", "events": ["study.finished"]},
        }
    },
}
"""By operation, examples of its JSON body by name."""
