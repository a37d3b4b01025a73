"""The families that are no networks: closed-form test functions, and models that outside programs train."""

from __future__ import annotations

from app.domain.families.declaration import Family, Hyperparameter, choice, float_parameter

TEST_FUNCTIONS = ("sphere", "rastrigin", "rosenbrock", "branin", "hartmann6")

FUNCTION = Family(
    name="function",
    version="1",
    description="Closed-form test functions without TensorFlow or data: for load tests, dashboards, integrations.",
    hyperparameters=(
        choice("function", "sphere", TEST_FUNCTIONS, "The function whose value is reported.", structural=True),
        float_parameter("delay_seconds", 0.0, 0.0, 3_600.0, "Seconds slept at each step (epoch)."),
    ),
    needs_dataset=False,
    tasks=("regression",),
    input_kind="none",
    stack_members=16,
    first_members=16,
    pattern=Hyperparameter(r"x(0|[1-9]\d{0,2})", "float", None, "Coordinates of the point.", low=-1e12, high=1e12),
)

DIMENSIONS = {"branin": 2, "hartmann6": 6}
"""Coordinates that a test function takes; those not named take any number."""


EXTERNAL = Family(
    name="external",
    version="1",
    description="Trained by outside programs, which ask for trials, report and tell over HTTP; any hyperparameters.",
    hyperparameters=(),
    needs_dataset=False,
    input_kind="none",
    stackable=False,
    trained_here=False,
    pattern=Hyperparameter(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", "any", None, "Whatever the program understands."),
)
