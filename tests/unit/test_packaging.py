"""The images, the compose file, the requirements and the Makefile agree with one another and with the code."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.cli import app as cli
from app.domain.study import StudyDefinition

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
COMMANDS = {command.name or command.callback.__name__ for command in cli.registered_commands if command.callback}


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = text.replace("\\\n", " ")
    return [(words[0].upper(), words[1]) for line in joined.splitlines() if len(words := line.split(None, 1)) == 2]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Each stage's base image and instructions, by name."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    current: list[tuple[str, str]] = []
    for instruction, argument in dockerfile():
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            current = []
            found[name] = (base, current)
        else:
            current.append((instruction, argument))
    return found


def ancestry(name: str) -> list[str]:
    """A stage and those it is made from, the nearest first."""
    chain = [name]
    while (base := stages()[chain[-1]][0]) in stages():
        chain.append(base)
    return chain


def in_image(name: str) -> list[tuple[str, str]]:
    """All instructions that lead to an image, in order."""
    return [step for stage in reversed(ancestry(name)) for step in stages()[stage][1]]


def pins(name: str) -> dict[str, list[str]]:
    """The pinned versions of a requirements file, by package."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        requirement = Requirement(line)
        assert re.fullmatch(r"==[^=,]+", str(requirement.specifier)), f"not pinned: {line}"
        found.setdefault(canonicalize_name(requirement.name), []).append(str(requirement.specifier)[2:])
    return found


def declared(*extras: str) -> list[Requirement]:
    """The requirements that pyproject.toml declares, with those of some extras."""
    lines = PROJECT["dependencies"] + [line for e in extras for line in PROJECT["optional-dependencies"][e]]
    return [r for r in map(Requirement, lines) if r.name != PROJECT["name"]]


def fettle_commands(words: list[str]) -> list[str]:
    return words[1:] if words[:1] == ["fettle"] else []


# -- the images -------------------------------------------------------------------------------------------------------


def test_every_copied_path_exists_and_reaches_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = [
        source
        for instruction, argument in dockerfile()
        if instruction == "COPY" and not argument.startswith("--from=")
        for source in argument.split()[:-1]
    ]
    assert copied
    assert "*" in ignored
    for source in copied:
        assert (ROOT / source).exists(), f"COPY of {source}, which does not exist"
        assert source.split("/")[0] in allowed, f"COPY of {source}, which .dockerignore keeps back"


def test_copies_between_stages_name_earlier_stages() -> None:
    seen: set[str] = set()
    for name, (_, steps) in stages().items():
        for instruction, argument in steps:
            if instruction == "COPY" and argument.startswith("--from="):
                assert argument.split()[0].removeprefix("--from=") in seen
        seen.add(name)


@pytest.mark.parametrize("image", ["api", "worker"])
def test_an_image_runs_a_real_command_without_rights_and_tells_its_health(image: str) -> None:
    steps = in_image(image)
    users = [argument for instruction, argument in steps if instruction == "USER"]
    assert users
    assert users[-1] not in {"root", "0"}
    health = [argument for instruction, argument in steps if instruction == "HEALTHCHECK"]
    assert len(health) == 1
    assert "CMD" in health[0]
    run = json.loads([argument for instruction, argument in steps if instruction == "CMD"][-1])
    checked = re.search(r'CMD \["fettle", "([a-z]+)"', health[0])
    for command in [*fettle_commands(run)[:1], *([checked[1]] if checked else [])]:
        assert command in COMMANDS
    assert run[0] == "fettle"


@pytest.mark.parametrize("image", ["api", "worker"])
def test_nothing_is_built_in_what_runs(image: str) -> None:
    installs = [argument for instruction, argument in in_image(image) if instruction == "RUN"]
    assert not any(re.search(r"\b(pip|uv|apt-get)\b", argument) for argument in installs)
    assert all("-slim" in stages()[stage][0] for stage in ancestry(image)[-1:])


def test_the_api_image_has_no_tensorflow_and_the_workers_has() -> None:
    api = " ".join(argument for _, argument in in_image("build-api"))
    worker = " ".join(argument for _, argument in in_image("build-worker"))
    assert "requirements/api.txt" in api
    assert "worker.txt" not in api
    assert "requirements/worker.txt" in worker
    assert not {"tensorflow", "keras", "torch"} & set(pins("api"))
    assert {"tensorflow", "keras"} <= set(pins("worker"))


def test_the_gpu_build_pins_the_same_tensorflow() -> None:
    script = next(argument for _, argument in stages()["build-worker"][1] if "and-cuda" in argument)
    expression = re.search(r"\$\((sed .*?requirements/worker\.txt)\)", script)
    assert expression
    version = subprocess.run(shlex.split(expression[1]), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert version.strip() == f"=={pins('worker')['tensorflow'][0]}"


def test_the_images_uv_is_the_makefiles() -> None:
    makefile = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert makefile
    assert any(f"uv=={makefile[1]}" in argument for _, argument in stages()["build"][1])
    assert pins("dev")["uv"] == [makefile[1]]


# -- compose ----------------------------------------------------------------------------------------------------------


def test_compose_has_the_services_and_builds_stages_that_exist() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "migrate", "api", "worker"}
    for name in ("migrate", "api", "worker"):
        assert COMPOSE["services"][name]["build"]["target"] in stages()


@pytest.mark.parametrize("name", ["migrate", "api", "worker"])
def test_a_service_runs_a_real_command_with_real_options(name: str) -> None:
    words = fettle_commands(COMPOSE["services"][name]["command"])
    assert words[0] in COMMANDS
    shown = subprocess.run(
        [sys.executable, "-m", "app", words[0], "--help"], capture_output=True, text=True, check=True
    )
    for option in words[1:]:
        assert option in shown.stdout


def test_the_variables_of_compose_and_images_are_settings() -> None:
    from app.settings import Settings

    names: list[str] = []
    for service in COMPOSE["services"].values():
        names += [name for name in service.get("environment", {}) if name.startswith("FETTLE_")]
    for _, argument in (step for step in dockerfile() if step[0] == "ENV"):
        names += re.findall(r"(FETTLE_\w+)=", argument)
    assert len(set(names)) >= 5
    for name in names:
        assert name.removeprefix("FETTLE_").lower() in Settings.model_fields


def test_nothing_starts_before_what_it_needs() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    assert "pg_isready" in " ".join(services["postgres"]["healthcheck"]["test"])
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["migrate"]["restart"] == "no"
    for name in ("api", "worker"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_an_open_service_is_published_on_loopback_alone() -> None:
    api = COMPOSE["services"]["api"]
    assert api["environment"]["FETTLE_ALLOW_OPEN"] == "true"
    assert all(port.startswith("127.0.0.1:") for port in api["ports"])
    assert not any("ports" in COMPOSE["services"][name] for name in ("postgres", "migrate", "worker"))


def test_the_volumes_are_declared_and_workers_share_the_apis() -> None:
    used: dict[str, set[str]] = {
        name: {mount.split(":")[0] for mount in service.get("volumes", [])}
        for name, service in COMPOSE["services"].items()
    }
    assert set(COMPOSE["volumes"]) == set().union(*used.values())
    assert used["api"] == used["worker"] != used["postgres"] != set()
    assert "container_name" not in COMPOSE["services"]["worker"], "a fixed name can't be scaled"


# -- requirements -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "extras"), [("api", ()), ("worker", ("worker",)), ("dev", ("worker", "dev"))], ids=["api", "worker", "dev"]
)
def test_the_pins_satisfy_what_the_project_declares(name: str, extras: tuple[str, ...]) -> None:
    pinned = pins(name)
    for requirement in declared(*extras):
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is declared and not in requirements/{name}.txt: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: make lock"


def test_each_file_of_pins_extends_the_one_before() -> None:
    api, worker, dev = pins("api"), pins("worker"), pins("dev")
    assert api.items() <= worker.items() <= dev.items()


# -- what no file may hold --------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """The files of the project: those that git knows or would take in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    skipped = {".venv", ".git", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)]


def test_no_file_holds_a_package_registrys_address() -> None:
    # Put together here, so that this file does not hold what it looks for.
    words = ("index" + "-url", "find" + "-links", "trusted" + "-host", "PIP" + "_INDEX", "UV" + "_INDEX")
    hosts = ("pypi" + r"\.org", "files" + r"\.pythonhosted", "artif" + "actory", "proxy" + r"\.golang")
    pattern = re.compile(
        "|".join((*(rf"(?<!no-emit-){word}[= ]+(?:https?:|file:|/)" for word in words), *hosts)), re.IGNORECASE
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if (match := pattern.search(path.read_bytes().decode("utf-8", "replace")))
    ]
    assert found == []
    assert not (ROOT / "uv.lock").exists()


# -- the code ---------------------------------------------------------------------------------------------------------


def test_the_domain_imports_pydantic_and_the_standard_library_alone() -> None:
    allowed = {*sys.stdlib_module_names, "pydantic", "pydantic_core", "annotated_types", "typing_extensions"}
    files = list((ROOT / "app" / "domain").glob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                fine = name.split(".")[0] in allowed or name.startswith("app.domain") or name == "app.errors"
                assert fine, f"{path.name} imports {name}"


@pytest.mark.parametrize("module", ["app.main", "app.cli", "app.client", "app.demo"])
def test_the_app_runs_without_tensorflow(module: str) -> None:
    code = (
        f"import sys, {module}; print(sorted({{name.split('.')[0] for name in sys.modules}}"
        " & {'tensorflow', 'keras', 'worker', 'torch'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


def test_the_commands_help_loads_no_server_and_no_database() -> None:
    code = (
        "import sys, app.cli; print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'fastapi', 'uvicorn', 'sqlalchemy', 'optuna', 'httpx', 'rich', 'pydantic'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.json")), ids=lambda path: path.name)
def test_an_example_is_a_valid_definition(path: Path) -> None:
    StudyDefinition.model_validate_json(path.read_text())


def test_the_makefile_has_the_targets_that_people_are_told_of() -> None:
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert targets >= {"setup", "demo", "serve", "test", "check", "format", "bench", "bench-quick", "lock", "clean"}


def test_the_check_that_runs_unattended_is_a_sound_script() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
