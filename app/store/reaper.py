"""Taking back what lost workers held. Any worker or API process may do it, several at once."""

from __future__ import annotations

from app.errors import NotFound
from app.store import leases
from app.store.engine import Database


class Reaper:
    """Takes back leases that had expired at two looks in a row. One a process; not thread-safe.

    A lease that has expired once tells little: what kept its holder from renewing it may have kept everybody, such as a
    database that was away for longer than the lease, or a machine that slept. Between the looks its holder renews it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lapsed: dict[int, set[str]] = {}
        """The tokens that had expired at the last look, by study."""

    def look(self) -> int:
        """End attempts whose leases were not renewed since the last look, and close studies past their deadline.

        Gives how many attempts ended. One short transaction a study, so that no two reapers ever wait for each other in
        a circle; none is tried again, since the next look comes soon.
        """
        before, self._lapsed = self._lapsed, {}
        with self._database.read() as session:
            studies = leases.expired_studies(session)
        return sum(self._look_at(study_id, before.get(study_id, set())) for study_id in studies)

    def _look_at(self, study_id: int, before: set[str]) -> int:
        try:
            with self._database.write() as session:
                lapsed = leases.lapsed(session, study_id)
                ended = leases.reap(session, study_id, lapsed & before)
        except NotFound:
            return 0  # deleted since it was listed
        self._lapsed[study_id] = lapsed - before
        return ended
