"""The cases of `test_bad_input`, by topic: each module gives `DEFINITIONS`, `REQUESTS` or both."""

from __future__ import annotations

from typing import Any

DefinitionCase = tuple[str, Any, list[Any]]
"""What is wrong, the definition, and the place that the answer must name."""
RequestCase = tuple[str, str, str, Any, dict[str, str], int, str, list[Any] | None]
"""What is wrong, method, path, body (bytes are sent as they are), headers, status, code, place."""
