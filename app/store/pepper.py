"""The service's own secret that keys are hashed under: given by a setting, or a file that is made once.

All API processes of a service need the same one. Without it no key can be checked, and none can be got back from what
is stored: new ones are made.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from app.errors import Unready

log = logging.getLogger("fettle.access")

FILE = "key-secret"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pepper:
    """Where the secret is: `given` by a setting, or else in the file `key-secret` of the data directory."""

    data_dir: Path
    given: str | None = None

    @property
    def where(self) -> str:
        """Where it is looked for, in words."""
        return "FETTLE_KEY_SECRET" if self.given else str(self.path)

    @property
    def path(self) -> Path:
        """The file."""
        return self.data_dir / FILE

    def find(self) -> bytes | None:
        """The secret; None where there is none yet.

        Raises:
            Unready: the file can't be read.
        """
        if self.given:
            return self.given.encode()
        try:
            if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                log.warning("others may read %s: chmod 600", self.path)
            found = self.path.read_bytes().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unready(f"Expected to read {self.path}. Received: {error.strerror}") from None
        if len(found) < SECRET_BYTES:
            raise Unready(f"Expected a secret of {SECRET_BYTES} bytes or more in {self.path}. Received a shorter one.")
        return found

    def ensure(self) -> bytes:
        """The secret; one is made where there is none. Processes that make one at once end with the same.

        Raises:
            Unready: the file can't be read or made.
        """
        found = self.find()
        if found is not None:
            return found
        draft = self.path.with_name(f".{FILE}-{secrets.token_hex(8)}")
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_hex(SECRET_BYTES).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, self.path)  # unlike a rename it never replaces another process's
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise Unready(f"Expected to make {self.path}. Received: {error.strerror}") from None
        made = self.find()
        if made is None:
            raise Unready(f"Expected {self.path} to stay. Received none.")
        return made
