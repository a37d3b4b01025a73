"""Whether what is counted agrees with what is there, study by study."""

from __future__ import annotations

import time
from collections.abc import Iterator

from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok
from app.store import consistency

MOST_STUDIES = 500
MOST_S = 20.0
NAMED = 5


def counters_and_logs(examination: Examination) -> Iterator[Finding]:
    """Look at open studies first, then at the newest, for as long as there is time."""
    if not examination.has_schema:
        return
    expected = "counters that equal the rows, and logs without gaps"
    with examination.reading() as session:
        studies = consistency.studies(session, MOST_STUDIES)
    end = time.monotonic() + MOST_S
    wrong: list[str] = []
    looked_at = 0
    for study_id, public_id in studies:
        with examination.reading() as session:
            wrong += [f"{public_id}: {problem}" for problem in consistency.inconsistencies(session, study_id)]
        looked_at += 1
        if time.monotonic() > end:
            break
    if wrong:
        more = f", and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        advice = "Keep a backup as it is and report this. Pause these studies; a backup from before may be restored."
        yield failed("consistency", expected, "; ".join(wrong[:NAMED]) + more, advice)
    else:
        yield ok("consistency", expected, f"{looked_at:,} studies, all in order")
