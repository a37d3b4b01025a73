"""The families that workers have advertised: what the API validates studies by, beside the built-in ones."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.domain.families import Family
from app.domain.families.plugin import as_json, from_json
from app.domain.json import dumps, loads
from app.domain.registry import BUILT_IN, Families
from app.store.log import clock
from app.store.tables import AdvertisedFamily

_ADVERTISE = text(
    "INSERT INTO fettle_families (name, version, declaration, advertised_at) "
    "VALUES (:name, :version, :declaration, :at) ON CONFLICT (name, version) "
    "DO UPDATE SET declaration = excluded.declaration, advertised_at = excluded.advertised_at"
)


def advertise(session: Session, families: Iterable[Family]) -> None:
    """Make known that workers train these families: each counts from now on as the newest of its name."""
    at = clock(session)
    # In one order everywhere: workers that start together don't wait for one another in a circle.
    for family in sorted(families, key=lambda f: (f.name, f.version)):
        row = {"name": family.name, "version": family.version, "declaration": dumps(as_json(family)), "at": at}
        session.execute(_ADVERTISE, row)


def known_families(session: Session) -> Families:
    """The built-in families, and those that were ever advertised."""
    query = select(AdvertisedFamily).order_by(AdvertisedFamily.advertised_at, AdvertisedFamily.version)
    advertised = [from_json(loads(row.declaration)) for row in session.scalars(query)]
    return BUILT_IN.and_also(family for family in advertised if family.name not in BUILT_IN)
