"""Plugins as a worker finds them: what is offered, and what is told of those that can't be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.domain.families import Hyperparameter
from app.domain.families.plugin import as_json, from_json
from app.domain.json import dumps, loads
from app.domain.registry import BUILT_IN
from app.domain.study import ModelSpec
from app.plugins import FamilyPlugin, InvalidPlugin, Metric, choice, flag, float_parameter, int_parameter
from worker.plugin_loading import installed

EXAMPLE = Path(__file__).parents[2] / "examples" / "family-plugin" / "src"
GOOD = {
    "good": "from app.plugins import FamilyPlugin\nPLUGIN = FamilyPlugin('good', '3', '', builder='good.code:build')\n"
}
BROKEN = {
    "raising": ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
    "leaving": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "missing": ("import surely_not_there\n", "ModuleNotFoundError"),
    "nameless": ("", "AttributeError"),
    "another": ("PLUGIN = 5\n", "Expected a FamilyPlugin. Received: int"),
    "taken": (
        "from app.plugins import FamilyPlugin\nPLUGIN = FamilyPlugin('mlp', '1', '', builder='a.b:c')\n",
        "that no built-in family has. Received: 'mlp'",
    ),
    "twice": (
        "from app.plugins import FamilyPlugin\nPLUGIN = FamilyPlugin('good', '4', '', builder='a.b:c')\n",
        "a second family 'good'",
    ),
    "wrong": (
        "from app.plugins import FamilyPlugin\nPLUGIN = FamilyPlugin('Wrong', '1', '', builder='a.b:c')\n",
        "Expected a name of small letters",
    ),
}


def install(folder: Path, name: str, code: str) -> None:
    """A package of one module with an entry point, as an installer would leave it."""
    (folder / f"plugin_{name}.py").write_text(code)
    info = folder / f"plugin_{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plugin-{name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[fettle.families]\n{name} = plugin_{name}:PLUGIN\n")


def test_broken_plugins_are_told_and_the_others_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in GOOD.items():
        install(tmp_path, name, code)
    for name, (code, _) in BROKEN.items():
        install(tmp_path, name, code)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = installed()
    assert set(plugins.offered) == {"good"}
    assert {f"{n} = plugin_{n}:PLUGIN" for n in BROKEN} == set(plugins.broken)
    for name, (_, words) in BROKEN.items():
        assert words in plugins.broken[f"{name} = plugin_{name}:PLUGIN"]
    registry = plugins.registry()
    assert registry.names == [*BUILT_IN.names, "good"]
    assert registry.of(ModelSpec(family="good")) == registry.of(ModelSpec(family="good", version="3"))
    assert registry.of(ModelSpec(family="good", version="2")) is None


def test_reading_the_declaration_of_the_example_imports_no_tensorflow() -> None:
    code = "import gated_mlp, sys; gated_mlp.PLUGIN.family(); print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{EXAMPLE}:{root}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


def test_a_declaration_comes_back_as_it_was_sent() -> None:
    plugin = FamilyPlugin(
        name="own",
        version="1.2",
        description="Own.",
        builder="a.b:c",
        hyperparameters=(
            int_parameter("units", 8, 1, 64, "Units."),
            choice("gate", "a", ("a", "b"), "Gate.", structural=True),
            flag("deep", "Deep."),
            Hyperparameter("free", "float", 0.5, "Any.", structural=True),
        ),
        input_kind="image",
        tasks=("regression",),
        metrics=(Metric("r2", "maximize", "a.b:d", description="R²."),),
    )
    family = plugin.family()
    assert from_json(loads(dumps(as_json(family)))) == family
    assert {"units", "learning_rate", "l2", "label_smoothing"} <= set(family.by_name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a b"}, "name of small letters"),
        ({"version": ""}, "version of 1 to 32"),
        ({"builder": None}, "either a builder or blocks"),
        ({"blocks": "a.b:c"}, "either a builder or blocks"),
        ({"builder": "a.b"}, "place as package.module:function"),
        ({"input_kind": "video"}, "input_kind"),
        ({"tasks": ()}, "tasks among"),
        ({"hyperparameters": (int_parameter("learning_rate", 1, 1, 2, ""),)}, "another name for a hyperparameter"),
        ({"hyperparameters": (int_parameter("a b", 1, 1, 2, ""),)}, "another name for a hyperparameter"),
        ({"hyperparameters": (int_parameter("a", 3, 1, 2, ""),)}, "default of 'a'"),
        ({"hyperparameters": (Hyperparameter("a", "int", None, ""),)}, "a default of 'a'"),
        ({"hyperparameters": (flag("a", ""), flag("a", ""))}, "'a' twice"),
        ({"hyperparameters": (choice("a", "b", ("b",), "", structural=False),)}, "to be a rate"),
        ({"builder": None, "blocks": "a.b:c", "hyperparameters": (float_parameter("a", 0, 0, 1, ""),)}, "at run time"),
        ({"metrics": (Metric("loss", "minimize", "a.b:c"),)}, "another name for a metric"),
        ({"metrics": (Metric("val_x", "minimize", "a.b:c"),)}, "another name for a metric"),
        ({"metrics": (Metric("x", "minimize", "a.b:c"), Metric("x", "minimize", "a.b:c"))}, "'x' twice"),
        ({"metrics": (Metric("x", "minimize", "c"),)}, "place as package.module:function"),
    ],
)
def test_a_declaration_that_cannot_be_trained_is_refused(changes: dict[str, object], words: str) -> None:
    given = {"name": "own", "version": "1", "description": "", "builder": "a.b:c"} | changes
    with pytest.raises(InvalidPlugin, match=words):
        FamilyPlugin(**given).family()  # type: ignore[arg-type]
