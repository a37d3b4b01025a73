"""Small files of data for tests, made here."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

CITIES = ("Lima", "Oslo", "Rome")


def csv_table(rows: int = 60) -> bytes:
    """A CSV of one number with gaps, a category, a truth value, a time, an id, and classes that follow from them."""
    lines = ["customer_id,age,city,member,since,churned"]
    for i in range(rows):
        age = "" if i % 10 == 9 else str(18 + (i * 7) % 50)
        member = i % 2 == 0
        churned = "yes" if (CITIES[i % 3] == "Oslo") != (member and i % 4 == 0) else "no"
        lines.append(f"c{i:04d}-x,{age},{CITIES[i % 3]},{str(member).lower()},2024-01-{i % 28 + 1:02d},{churned}")
    return ("\n".join(lines) + "\n").encode()


def text_table(rows: int = 40) -> bytes:
    """A CSV of one text and its class."""
    words = (("good lovely fine great", "nice"), ("bad awful poor terrible", "nasty"))
    lines = ["text,label", *(f'"{words[i % 2][0]}, number {i}",{words[i % 2][1]}' for i in range(rows))]
    return ("\n".join(lines) + "\n").encode()


def npz(**arrays: Any) -> bytes:
    """A `.npz` of these arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def images(rows: int = 40, side: int = 8) -> dict[str, Any]:
    """Images, [rows, side, side] uint8, bright on the left or on the right, and which, [rows]."""
    draws = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    pixels = draws.integers(0, 100, (rows, side, side))
    pixels[labels == 0, :, : side // 2] += 120
    pixels[labels == 1, :, side // 2 :] += 120
    return {"x": pixels.astype(np.uint8), "y": labels.astype(np.int64)}


def zip_of(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(shape: str, dtype: str, content: bytes) -> bytes:
    """An `.npy` whose header says so, whatever its content is."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def form(file: bytes, filename: str, fields: Any) -> tuple[bytes, dict[str, str]]:
    """A multipart form with a file and fields (pairs), as bytes, and its header."""
    boundary = "fettle-test-boundary"
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'.encode()
    body = b"".join(parts) + head + file + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
