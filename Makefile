# Fettle. `make help` lists the targets; the first one to run sets up .venv by itself.
# Needs Python 3.11-3.13 and make, nothing else. `make PYTHON=python3.12 setup` picks another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# KerasTuner and Ray Tune live apart: Fettle never needs them, and their requirements are not ours.
PEERS_VENV ?= .venv-peers
# Tests start real processes with TensorFlow: more than two at a time starve one another on a small machine.
TEST_PROCESSES ?= 2
# Tests of crashes mostly wait, for leases to expire and processes to start.
CRASH_PROCESSES ?= 4
TEST_TIMEOUT_S ?= 180
UV_VERSION := 0.13.9

RUNTIME_STAMP := $(VENV)/.fettle-runtime
DEV_STAMP := $(VENV)/.fettle-dev
PEERS_STAMP := $(PEERS_VENV)/.fettle-peers

# uv first, because it is quick; pip where only pip knows the way to the packages. Bytecode at once: a service starts
# in half the time, also where PYTHONDONTWRITEBYTECODE keeps Python from writing it later.
install = { $(BIN)/uv pip install --quiet --compile-bytecode --python $(2)/bin/python -r $(1) \
	|| $(2)/bin/python -m pip install --quiet -r $(1); }

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-all test-thorough test-crashes test-large hostile crash fuzz check format bench bench-quick peers lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

setup: $(DEV_STAMP) ## Make .venv with everything that development needs

demo: $(RUNTIME_STAMP) ## Start a service, tune a model on it, show the result, stop it again
	@$(BIN)/python -m app.demo

serve: $(RUNTIME_STAMP) ## Run the API and one worker on http://127.0.0.1:8000 (data in ./fettle-data)
	@exec $(BIN)/fettle up

PYTEST = $(BIN)/python -m pytest --timeout $(TEST_TIMEOUT_S) --durations 20

test: $(DEV_STAMP) ## Prove what is promised, in minutes (ARGS="-k name" passes options on to pytest)
	$(PYTEST) -n $(TEST_PROCESSES) --dist loadfile -m "not thorough" $(ARGS)

test-all: $(DEV_STAMP) ## Run every test there is
	@failed=0; for part in test test-thorough test-crashes test-large; do $(MAKE) --no-print-directory $$part || failed=1; done; exit $$failed

test-thorough: $(DEV_STAMP) ## Run what make test leaves out, but for test-crashes and test-large
	$(PYTEST) --ignore tests/crash -n $(TEST_PROCESSES) --dist loadfile -m thorough $(ARGS)

test-crashes: $(DEV_STAMP) ## Run the crash tests that make test leaves out, once
	$(PYTEST) tests/crash -n $(CRASH_PROCESSES) --dist load --maxschedchunk 1 -m thorough $(ARGS)

# One process: a program of this suite keeps all cores busy, and holds gigabytes.
test-large: $(DEV_STAMP) ## Train programs of every family far beyond 256 MB, in each variant
	$(BIN)/python -m pytest tests/large --timeout 900 $(ARGS)

hostile: $(DEV_STAMP) ## Send what costs most: requests, files and definitions, also what make test leaves out
	$(PYTEST) tests/hostile -n $(TEST_PROCESSES) --dist load $(ARGS)

N ?= 1
RECORD ?= tests/crash/rounds.jsonl
# Several rounds are recorded case by case: cut off, the same command goes on after the last one.
crash: $(DEV_STAMP) ## Kill, stop and starve every part of it, N times over, resumed where it stopped (make crash N=20)
	CRASH_ROUNDS=$(N) CRASH_RECORD=$(RECORD) $(BIN)/python -m pytest tests/crash -n $(CRASH_PROCESSES) --dist load --maxschedchunk 1 --timeout $(TEST_TIMEOUT_S) $(ARGS)

fuzz: $(DEV_STAMP) ## Search with N times as many requests and examples, others each time (make fuzz N=20)
	FETTLE_TEST_EXAMPLES=$(if $(filter command line,$(origin N)),$(N),20) $(BIN)/python -m pytest \
		tests/fuzz tests/store/test_leases_model.py -n $(TEST_PROCESSES) --dist load --timeout 14400 $(ARGS)

check: $(DEV_STAMP) ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_STAMP) ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

BENCH = $(BIN)/python -m bench --peers-python $(PEERS_VENV)/bin/python
bench: $(DEV_STAMP) $(PEERS_STAMP) ## Measure Fettle beside its peers: hours, resumed where it stopped (ARGS="--only digits")
	$(BENCH) $(ARGS)

bench-quick: $(DEV_STAMP) $(PEERS_STAMP) ## A little of it in five minutes, for a first impression
	$(BENCH) --quick $(ARGS)

peers: $(PEERS_STAMP) ## Make .venv-peers with KerasTuner and Ray Tune, for the bench

# Keeps the present pins where they still fit; `make lock UPGRADE=--upgrade` moves them all.
COMPILE_GROUP = $(BIN)/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate
COMPILE = $(COMPILE_GROUP) pyproject.toml
lock: $(VENV)/.fettle-uv ## Pin the requirements again, from pyproject.toml
	$(COMPILE) --output-file requirements/api.txt
	$(COMPILE) --constraint requirements/api.txt --extra worker --output-file requirements/worker.txt
	$(COMPILE) --constraint requirements/worker.txt --extra dev --output-file requirements/dev.txt
	$(COMPILE_GROUP) --constraint requirements/dev.txt --group bench-peers --output-file requirements/bench-peers.txt

clean: ## Remove .venv, caches and the demo's data (never ./fettle-data)
	rm -rf $(VENV) $(PEERS_VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist fettle-data-demo-*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.fettle-uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit(\
		"Expected Python 3.11 to 3.13, received %d.%d. Try: make PYTHON=python3.11 ..." % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing uv $(UV_VERSION)"
	@$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	@touch $@

$(RUNTIME_STAMP): requirements/worker.txt pyproject.toml | $(VENV)/.fettle-uv
	@echo "Installing requirements/worker.txt (TensorFlow is large: minutes on a slow line)"
	@$(call install,requirements/worker.txt,$(VENV))
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(DEV_STAMP): requirements/dev.txt $(RUNTIME_STAMP)
	@echo "Installing requirements/dev.txt"
	@$(call install,requirements/dev.txt,$(VENV))
	@touch $@

$(PEERS_STAMP): requirements/bench-peers.txt | $(VENV)/.fettle-uv
	@test -x $(PEERS_VENV)/bin/python || $(BIN)/python -m venv $(PEERS_VENV)
	@echo "Installing requirements/bench-peers.txt (TensorFlow once more, Ray, KerasTuner)"
	@$(call install,requirements/bench-peers.txt,$(PEERS_VENV))
	@touch $@
