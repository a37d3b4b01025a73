"""Hyperparameters on a command line."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from app.cli.enqueue import assigned


def test_values_have_the_types_that_they_look_like() -> None:
    found = assigned(["a=1", "b=1e-3", "c=true", "d=relu", 'e="1"', "f=x=y", "g=", "h=null", "i=NaN", "j=[1]"])
    expected: dict[str, Any] = {
        "a": 1, "b": 0.001, "c": True, "d": "relu", "e": "1", "f": "x=y", "g": "", "h": "null", "i": "NaN", "j": "[1]",
    }  # fmt: skip
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=1", "a=2"]])
def test_what_assigns_nothing_is_refused(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        assigned(texts)
