"""Studies with a past of our choosing: trials written as a worker would have recorded them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select

from app.domain.json import decode_number, dumps
from app.store.engine import Database
from app.store.locking import lock_study, tell
from app.store.tables import Study, Trial


def past(database: Database, public_id: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """Add finished trials to a study: each has `sampled`, and may have `values`, `state`, `curve`, `violations`,
    `metrics`, `reason`, `error`. Trial i starts i seconds after the study and takes one.
    """
    with database.write() as session:
        study_id = session.execute(select(Study.id).where(Study.public_id == public_id)).scalar_one()
        study = lock_study(session, study_id)
        rows = []
        for trial in trials:
            number, state = study.next_number, trial.get("state", "COMPLETE")
            values, violations = trial.get("values"), trial.get("violations")
            study.next_number += 1
            study.finished_count += 1
            counter = state.lower()
            setattr(study, counter, getattr(study, counter) + 1)
            feasible = not any(decode_number(v) > 0 for v in violations or ()) if state == "COMPLETE" else None
            if (
                feasible
                and values
                and math.isfinite(values[0])
                and (study.best_value is None or values[0] < study.best_value)
            ):
                study.best_number, study.best_value = number, values[0]
            code, message = trial.get("error", (None, None))
            rows.append(
                {
                    "study_id": study_id,
                    "number": number,
                    "ordinal": number,
                    "state": state,
                    "reason": trial.get("reason"),
                    "feasible": feasible,
                    "attempt": 1,
                    "hyperparameters": dumps(trial.get("hyperparameters", trial["sampled"])),
                    "sampled": dumps(trial["sampled"]),
                    "objective_values": None if values is None else dumps(values),
                    "value": None if values is None else values[0],
                    "metrics": dumps(trial["metrics"]) if "metrics" in trial else None,
                    "selected_epoch": 0 if values else None,
                    "epochs": len(trial.get("curve", ())),
                    "curve": dumps([[epoch, value] for epoch, value in enumerate(trial.get("curve", ()))]),
                    "violations": dumps(violations) if violations else None,
                    "error_code": code,
                    "error_message": message,
                    "finish_token": secrets.token_hex(16),
                    "worker_id": "w0",
                    "device": "cpu",
                    "finish_seq": study.finished_count,
                    "created_at": study.at,
                    "started_at": study.at + number,
                    "finished_at": study.at + number + 1.0,
                }
            )
        for i in range(0, len(rows), 500):
            session.execute(insert(Trial), rows[i : i + 500])
        tell(study, [])
