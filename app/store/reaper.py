"""Taking back what lost workers held. Any worker or API process may do it, several at once."""

from __future__ import annotations

from app.errors import NotFound
from app.store import leases
from app.store.engine import Database


def reap_expired(database: Database) -> int:
    """End all attempts whose leases have expired and close studies past their deadline; how many attempts ended.

    One short transaction a study, so that no two reapers ever wait for each other in a circle.
    """
    with database.read() as session:
        studies = leases.expired_studies(session)
    ended = 0
    for study_id in studies:
        try:
            ended += database.run(lambda session, study_id=study_id: leases.reap(session, study_id))  # type: ignore[misc]
        except NotFound:
            continue  # deleted since it was listed
    return ended
