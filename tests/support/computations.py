"""Functions that tests have computed in child processes. They stand in a module that a child can import."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from app.errors import FieldError, InvalidDataset, TooManyRequests


def add(first: int, second: int) -> int:
    return first + second


def process_id() -> int:
    return os.getpid()


def search_path() -> list[str]:
    return sys.path


def print_then_answer(text: str) -> str:
    print(text)
    os.write(1, text.encode())
    return text


def fill(count: int) -> int:
    """Take `count` bytes."""
    return len(bytearray(count))


def fail_in_words() -> None:
    raise InvalidDataset("file: Expected rows. Received none", errors=[FieldError(("file", 3), "Expected rows.")])


def fail_for_now() -> None:
    raise TooManyRequests("Expected fewer.", retry_after_s=7)


def break_down() -> None:
    raise ZeroDivisionError("a bug")


def die() -> None:
    os._exit(9)


def note_and_sleep(path: str, seconds: float) -> None:
    """Write this process' id to a file, then sleep."""
    Path(path).write_text(str(os.getpid()), encoding="ascii")
    time.sleep(seconds)
