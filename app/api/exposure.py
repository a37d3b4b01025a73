"""Whom a service is open to: without keys to this machine alone, unless its operator says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from app.domain.keys import mark
from app.errors import FettleError, Unready
from app.store.engine import Database
from app.store.keys import usable_keys
from app.store.pepper import Pepper
from app.store.tables import ApiKey

if TYPE_CHECKING:
    from app.settings import Settings


class OpenToStrangers(FettleError):
    """The service would answer anybody who reaches this machine, or nobody at all."""


def pepper_of(settings: Settings) -> Pepper:
    """Where the secret is that keys are hashed under."""
    given = settings.key_secret
    return Pepper(settings.data_dir, None if given is None else given.get_secret_value())


def check_exposure(settings: Settings) -> None:
    """Return where only this machine reaches the service, or there are API keys, or its operator said that others may.

    Raises:
        OpenToStrangers: none is so.
        Unready: the database must be asked for keys and can't be.
    """
    if settings.is_loopback or settings.allow_open:
        return
    usable, others = keys_in_force(settings)
    if usable:
        return
    alien = f" ({others} were made with another secret than that of {pepper_of(settings).where})" if others else ""
    raise OpenToStrangers(
        f"Expected API keys, or a loopback address such as 127.0.0.1. Received: host={settings.host!r} without "
        f"keys in force{alien}. Make one with `fettle keys create NAME --scope admin`, which takes the same --data-dir "
        "or --database-url. To serve everybody who reaches this address, set FETTLE_ALLOW_OPEN=true."
    )


def keys_in_force(settings: Settings) -> tuple[int, int]:
    """How many keys in force this process can check, and how many were made with another secret."""
    url = settings.resolved_database_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return 0, 0
    database = Database(url)
    try:
        with database.read() as session:
            if not inspect(session.connection()).has_table(ApiKey.__tablename__):
                return 0, 0
            by_mark = usable_keys(session)
    except OperationalError as error:
        where = database.url.render_as_string(hide_password=True)
        raise Unready(f"Expected a database at {where}. Received: {str(error.orig).strip()}") from None
    finally:
        database.dispose()
    pepper = pepper_of(settings).find()
    usable = 0 if pepper is None else by_mark.get(mark(pepper), 0)
    return usable, sum(by_mark.values()) - usable
