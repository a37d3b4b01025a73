"""`fettle doctor`: what may be wrong with a service, looked at from one of its machines.

`GROUPS` lists what is looked at, a module a group. To look at something else, write a function that takes an
`Examination` and yields findings, and add it there. Nothing is changed: what is written is deleted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from app.doctor.consistency import counters_and_logs
from app.doctor.database import reached, schema
from app.doctor.devices import device_here
from app.doctor.examination import Examination
from app.doctor.exposure import address
from app.doctor.findings import Finding, Status
from app.doctor.fleet import workers_and_leases
from app.doctor.libraries import optional_libraries
from app.doctor.open_files import open_files
from app.doctor.postgresql import postgresql_server
from app.doctor.sqlite import sqlite_file
from app.doctor.storage import places

Check = Callable[[Examination], Iterator[Finding]]

GROUPS: tuple[Check, ...] = (
    sqlite_file,  # before the others connect: they switch the file to the journal that it should have
    open_files,
    reached,
    schema,
    postgresql_server,
    places,
    counters_and_logs,
    workers_and_leases,
    device_here,
    address,
    optional_libraries,
)
"""What is looked at, in this order: later groups may rely on what earlier ones found out."""


def examine(examination: Examination) -> Iterator[Finding]:
    """All findings, as they come. A check that breaks is a finding too."""
    for group in GROUPS:
        try:
            yield from group(examination)
        except Exception as error:  # noqa: BLE001 - the others are to be made whatever happens in one
            name = group.__name__.replace("_", " ")
            found = f"{type(error).__name__}: {error}"
            yield Finding(name, Status.FAILED, "a check that can be made", found, "Look at the other findings first.")


__all__ = ["GROUPS", "Check", "Examination", "Finding", "Status", "examine"]
