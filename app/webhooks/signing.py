"""Signatures of webhooks, as Standard Webhooks 1.0 describes them (standardwebhooks.com).

The receiver computes HMAC-SHA256 over `webhook-id.webhook-timestamp.body` with the secret that both know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

PREFIX = "whsec_"
NEW_BYTES = 32
FEWEST_BYTES, MOST_BYTES = 24, 64
"""Bytes that a secret may have, by the specification."""


def new_secret() -> str:
    """A secret from the operating system's randomness."""
    return PREFIX + base64.b64encode(secrets.token_bytes(NEW_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        ValueError: it is none. The message doesn't repeat it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not FEWEST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(
            f"Expected {PREFIX} and the base64 of {FEWEST_BYTES} to {MOST_BYTES} random bytes. Received another text."
        )
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """What the header `webhook-signature` says of a message; `timestamp` is in whole Unix seconds."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
