# Everything a developer or CI does. Needs make and a Python of at least 3.11 with its venv module; the rest is installed
# into .venv, in the versions of constraints.txt.

PYTHON ?= python3
ARGS ?=
PACKAGES := orchestrator participants outbox migrations examples benchmarks chaos simulation

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
# The tests make thousands of small files and databases, so they do it on a RAM disk where there is a roomy one.
SCRATCH ?= $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4194304 { print "/dev/shm/amends-tests-'`id -u`'" }')
NPROCESSES := -n 4  # more than the cores of a small machine: many tests wait for servers and timers

.DEFAULT_GOAL := help
.PHONY: help demo bench chaos test lint check mutants docs clean

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUN_READY) ## Run sagas against a real NATS server on this machine, and show what happens to them
	@$(BIN)/saga demo $(ARGS)

bench: $(DEV_READY) ## Measure how fast sagas run on this machine (ARGS="--steps 3" is handed to saga bench)
	@$(BIN)/saga bench $(ARGS)

chaos: $(DEV_READY) ## Break everything at random for five minutes, and prove that nothing was lost (ARGS is handed on)
	@$(BIN)/saga chaos run mix --duration 300 $(ARGS)

test: $(DEV_READY) ## Run the tests (ARGS="-k relay" is handed to pytest)
	@$(if $(SCRATCH),mkdir -p $(SCRATCH) && TMPDIR=$(SCRATCH)) $(BIN)/python -m pytest $(NPROCESSES) $(ARGS)

lint: $(DEV_READY) ## Style, types, and the rules on imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) tests
	$(BIN)/lint-imports

check: lint test ## What CI runs: lint, then the tests

mutants: $(DEV_READY) ## Plant mistakes, and show how the explorer or the simulation finds each
	@$(BIN)/python -m tests.mutants $(ARGS)

docs: $(RUN_READY) ## Draw again, from the code, what the pages show of it
	@$(BIN)/python -m docs.draw

clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find $(PACKAGES) docs tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'pass' 2>/dev/null || { \
	  echo "Amends needs Python 3.11 or newer, and there is no '$(PYTHON)' here. Install it, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Amends needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(RUN_READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Amends into $(VENV) ..."
	@$(INSTALL) --editable .
	@touch $@

$(DEV_READY): $(RUN_READY)
	@echo "Installing the tools of development ..."
	@$(INSTALL) --editable '.[dev]'
	@touch $@
