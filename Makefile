# Needs: make and Python 3.11 or newer (PYTHON=python3.13 picks one). Everything else comes from the two lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-input
UV := build/lock/bin/uv
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
LINTED := src tests benchmarks docs

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run dev test simulate check static lint format layers types contract schemathesis faults catalogue docs bench bench-fleet \
	bench-usage bench-webhooks bench-events browser \
	conformance lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/.installed ## Make .venv with the hub in it, from requirements.lock

run: install ## Start the hub; ARGS="--port 8080 …" go to `plughub serve`
	$(BIN)/plughub serve $(ARGS)

dev: $(VENV)/.dev ## Add what tests and checks need, from requirements-dev.lock

test: dev ## Run the tests; ARGS="tests/keys -k revoked" go to pytest
	$(BIN)/python -m pytest --ignore=tests/browser $(or $(ARGS),-n auto --dist loadfile)

browser: dev ## The documents' samples and the pages in a real Chromium; skipped, and said so, where there is none
	$(BIN)/python -m pytest -rs tests/browser $(ARGS)

simulate: dev ## Run the hub through random storms: SEEDS=0:500, or one of them again: SEEDS=7
	SEEDS=$(or $(SEEDS),0:200) $(BIN)/python -m pytest -q tests/simulation -k storm $(ARGS)

check: static contract test ## Everything that CI checks but the benchmark

static: lint layers types

lint: dev ## Format and lint, changing nothing
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/ruff check $(LINTED)

format: dev ## Format, and mend what can be mended
	$(BIN)/ruff check --fix-only --quiet $(LINTED)
	$(BIN)/ruff format $(LINTED)

layers: dev ## Imports point down
	$(BIN)/lint-imports

types: dev ## mypy --strict
	$(BIN)/mypy

contract: dev ## Write the generated files of contract/ anew; fails when one differs from the committed one
	$(BIN)/python -m plughub.contract
	$(BIN)/python -m tests.contract.refusals
	git diff --exit-code -- contract/
	@new=$$(git ls-files --others --exclude-standard -- contract/); test -z "$$new" || { echo "not committed: $$new"; exit 1; }

schemathesis: dev ## Let Schemathesis loose on a hub, all checks; FUZZ="--seconds 600" for longer than half a minute a run
	$(BIN)/python -m tests.contract.fuzz $(FUZZ)

faults: dev ## The hub among servers and clients that misbehave, in figures; FAULTS="--full" for the counts of the scoreboard
	$(BIN)/python -m tests.faults $(FAULTS)

catalogue: dev ## Install every server of the catalogue from its real registry, and ask for its tools
	$(BIN)/python -m tests.registry.catalogue

docs: dev ## Write docs/settings.md and docs/errors.md anew
	$(BIN)/python -m docs.settings_page
	$(BIN)/python -m docs.errors_page

bench: dev ## Measure the hub against its targets; BENCH_ARGS="--quick"
	$(BIN)/python -m benchmarks.hub $(BENCH_ARGS)

conformance: dev ## Run the official conformance suite direct and through the hub; ARGS="--only http-2026"
	$(BIN)/python -m tests.conformance.run $(ARGS)
bench-events: dev ## Measure how long an event takes to a thousand clients; BENCH_ARGS="--clients 200 --seconds 5"
	$(BIN)/python -m benchmarks.events $(BENCH_ARGS)

bench-fleet: dev ## Measure a hub with many servers: lists, idle servers, restarts beside calls; BENCH_ARGS="--quick"
	$(BIN)/python -m benchmarks.fleet $(BENCH_ARGS)

bench-usage: dev ## Measure what counting usage costs
	$(BIN)/python -m benchmarks.usage

bench-webhooks: dev ## Measure deliveries at a steady rate, on both databases; BENCH_ARGS="--quick"
	$(BIN)/python -m benchmarks.webhooks $(BENCH_ARGS)

lock: $(UV) ## Write both lock files anew after a change of the dependencies; UPGRADE=1 takes the newest versions
	$(LOCK) $(if $(UPGRADE),--upgrade) --extra build --output-file requirements.lock pyproject.toml
	$(LOCK) $(if $(UPGRADE),--upgrade) --extra build --extra telemetry --extra semantic --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean: ## Remove everything that make made (not data/)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# ensurepip writes bin/pip last: an interrupted `venv` is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Plughub needs Python 3.11 or newer; name one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

# pip compiles what it installs; our own sources are compiled here, since the first start would pay for it otherwise.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/pip
	$(PIP) --require-hashes --requirement requirements.lock
	$(PIP) --no-build-isolation --no-deps --editable .
	$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.installed
	$(PIP) --require-hashes --requirement requirements-dev.lock
	@touch $@

# uv lives apart: only whoever changes the dependencies needs it.
$(UV):
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
