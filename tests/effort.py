"""How hard tests search: few examples by default, always the same; as many as one asks for, each time others."""

from __future__ import annotations

import os
from typing import Any

import hypothesis

EXAMPLES = "FETTLE_TEST_EXAMPLES"
"""The environment variable that multiplies the examples of every searching test: 20 is a long run."""


def factor() -> int:
    """By how much more than usual tests search."""
    return max(1, int(os.environ.get(EXAMPLES, "1")))


def searching(examples: int, **changes: Any) -> hypothesis.settings:
    """Hypothesis' settings for a test that tries `examples` by default.

    A plain run repeats itself, so that a failure is the change's own; a longer one looks elsewhere each time.
    """
    chosen: dict[str, Any] = {
        "max_examples": examples * factor(),
        "derandomize": EXAMPLES not in os.environ,
        "database": None,
        "deadline": None,
        "print_blob": True,
        "suppress_health_check": list(hypothesis.HealthCheck),
    }
    return hypothesis.settings(**(chosen | changes))
