# make demo and make test need nothing but Python 3.11 or newer and a shell; `make help` lists the rest.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for servers, so two of them share a core. A file stays together, with its servers.
PARALLEL := -n 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo up down test test-fast lint format rules boards docs lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (make PYTHON=python3.12 ...)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 lacks venv: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.demo: requirements/demo.txt pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/demo.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.demo ## install and run everything with embedded servers and simulated traffic
	@exec $(BIN)/ghl-exporter demo $(DEMO_FLAGS)

up: ## the whole stack with Docker Compose (COMPOSE_PROFILES=demo: a simulated agency)
	@sh docker/secrets.sh
	docker compose up --detach --build --wait

down: ## stop the stack; its data stays in its volumes
	docker compose down

test: $(VENV)/.dev lint ## install what the tests need and pass them all
	@sh tests/install-servers.sh
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_FLAGS)

test-fast: $(VENV)/.dev ## the tests without those that kill servers again and again
	$(BIN)/python -m pytest -m 'not slow' $(PARALLEL) $(PYTEST_FLAGS)

lint: $(VENV)/.dev ## ruff, ruff format, import-linter and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

rules: $(VENV)/.dev ## write recording_rules/ and alerts/ from the code
	$(BIN)/python -m alerts.generate

boards: $(VENV)/.dev ## write grafana/dashboards from the code
	$(BIN)/python -m grafana.generate

docs: $(VENV)/.dev ## write docs/reference from the code
	$(BIN)/python -m docs.generate

lock: ## pin the dependencies anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --extra demo pyproject.toml requirements/build.in -o requirements/demo.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --extra test pyproject.toml requirements/build.in -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt pyproject.toml -o requirements/service.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt requirements/build.in -o requirements/build.txt

clean: ## remove the virtual environment and the demo's data
	rm -rf $(VENV) .demo
