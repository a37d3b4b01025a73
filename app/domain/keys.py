"""API keys as text: `fettle_<public part>_<secret><checksum>`, in the letters and digits of ASCII.

The prefix is for scanners that look for secrets in files. The public part names the key, the secret has 190 bits of
chance, and the checksum (CRC-32) tells a mistyped key from a wrong one before anything is looked up. What is stored is
an HMAC-SHA-256 of the whole text under a secret of the service: neither the table nor its backup gives keys away.
Whoever puts a key where an id belongs doesn't find it in logs, problems and the audit log: see `masked`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass

PREFIX = "fettle_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
PUBLIC_CHARACTERS = 12
SECRET_CHARACTERS = 32
"""Of 62 letters and digits: 190 bits."""
CHECKSUM_CHARACTERS = 6
"""What CRC-32 takes in base 62."""

_KEY = re.compile(
    f"{PREFIX}(?P<public>[0-9A-Za-z]{{{PUBLIC_CHARACTERS}}})_"
    f"[0-9A-Za-z]{{{SECRET_CHARACTERS}}}(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})"
)

_UNDERSCORE = "(?:_|%5f)"
_SECRET = re.compile(
    f"({PREFIX.removesuffix('_')}{_UNDERSCORE}[0-9a-z]{{{PUBLIC_CHARACTERS}}}{_UNDERSCORE})"
    f"[0-9a-z]{{1,{SECRET_CHARACTERS + CHECKSUM_CHARACTERS}}}",
    re.IGNORECASE,
)
"""Of a key its secret, also where the text was cut, quoted for a URL, or its letters were made small."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A key that was presented and is written as one: its public id, and its whole text."""

    key_id: str
    text: str


def new_key(key_id: str | None = None) -> Presented:
    """A new key; with `key_id` another secret for the same one."""
    public = key_id.removeprefix("key_") if key_id is not None else _chance(PUBLIC_CHARACTERS)
    body = f"{PREFIX}{public}_{_chance(SECRET_CHARACTERS)}"
    return Presented(f"key_{public}", body + _checksum(body))


def read_key(text: str) -> Presented | None:
    """The key that `text` is written as; None where it is no key, or was mistyped."""
    found = _KEY.fullmatch(text)
    if found is None or _checksum(text[:-CHECKSUM_CHARACTERS]) != found["checksum"]:
        return None
    return Presented(f"key_{found['public']}", text)


def shown_prefix(key_id: str) -> str:
    """How the text of a key begins: enough to recognise it by, nothing to use."""
    return f"{PREFIX}{key_id.removeprefix('key_')}_"


def masked(text: str) -> str:
    """`text` without the secrets of keys in it: for what is told to others than the key's holder."""
    return _SECRET.sub(r"\1…", text)


def digest(pepper: bytes, text: str) -> str:
    """What is stored of a key: HMAC-SHA-256 under the service's secret, in hexadecimal."""
    return hmac.new(pepper, text.encode(), hashlib.sha256).hexdigest()


def mark(pepper: bytes) -> str:
    """Names the service's secret without telling it: keys made with another one can't be used."""
    return hmac.new(pepper, b"fettle key secret", hashlib.sha256).hexdigest()[:16]


def _chance(characters: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(characters))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
