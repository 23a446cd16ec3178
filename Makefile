# Every target makes the virtual environment first, if it is not there.
# Another interpreter: make test PYTHON=/path/to/python3.12

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?=
PYTEST_ARGS ?=
# Three more than there are cores: with two more, a fifth of the time of the cores was left over, because
# tests wait for processes that they started.
WORKERS ?= $(shell $(BIN)/python -c 'import os; print(3 + (os.cpu_count() or 1))' 2>/dev/null || echo auto)
# Those that are used. Each worker would rewrite the assertions in the packages of all that are installed.
PLUGINS := asyncio hypothesispytest pytest_cov schemathesis timeout xdist xdist.looponfail
BENCH ?=
SCHEDULES ?= 300
MINUTES ?= 30
CASES ?= 5000

.PHONY: help demo demo-events test coverage check check-long fuzz static docs mutation bench boundaries faults soak \
	screenshots format clean

help:
	@echo 'make demo     engine and example app, driven by a scripted client (DEMO_EXIT=1: then stop)'
	@echo 'make demo-events  an endpoint that waits for functions in Python and TypeScript, driven likewise'
	@echo 'make test     the tests (PYTEST_ARGS="-k name" narrows them)'
	@echo 'make coverage the tests, and which lines of the code they did not run'
	@echo 'make check    formatting, lint, types, import contract, then the tests'
	@echo 'make check-long  the same, with many more made-up examples: before a release'
	@echo 'make fuzz     changed requests, answers, states and tokens (CASES=5000 of each kind, SEED=1)'
	@echo 'make docs     the documentation as a site in site/, with the reference from the docstrings'
	@echo 'make mutation changes the pure parts in small ways, and lists what no test notices'
	@echo 'make bench    the benchmarks, and one table of all (BENCH="steps core" narrows them)'
	@echo 'make faults   random schedules of faults (SCHEDULES=300; SEED=n for the first)'
	@echo 'make boundaries  a crash before and after every commit and send (CRASHES="sync settle" narrows them)'
	@echo 'make soak     load with a kill a minute, and what grows (MINUTES=30; SPARE="engine app": no kills)'
	@echo 'make screenshots  pictures of every page of the dashboard, into screenshots/'
	@echo 'make format   ruff formats the code and sorts imports'

demo: $(READY)
	@$(BIN)/python examples/demo.py

demo-events: $(READY)
	@$(BIN)/python -m examples.demo_events

test: $(READY)
	@echo '==> pytest'
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(BIN)/python -m pytest $(PLUGINS:%=-p %) -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Apart from `test`, which it makes half as slow again.
coverage:
	@$(MAKE) --no-print-directory test PYTEST_ARGS='--cov --cov-report=term $(PYTEST_ARGS)'

check: static
	@$(MAKE) --no-print-directory test

check-long:
	@$(MAKE) --no-print-directory check \
		PYTEST_ARGS='--hypothesis-profile=long --timeout=1800 $(PYTEST_ARGS)'

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzzing --cases $(CASES) --seed $(or $(SEED),1)

static: $(READY)
	@echo '==> ruff format --check'
	@$(BIN)/ruff format --check .
	@echo '==> ruff check'
	@$(BIN)/ruff check .
	@echo '==> mypy --strict'
	@$(BIN)/mypy $(if $(CI),--no-incremental)
	@echo '==> import contract (lint-imports)'
	@$(BIN)/lint-imports --no-cache
	@echo '==> pyright'
	@if $(BIN)/pyright --version >/dev/null 2>$(VENV)/pyright.log; then $(BIN)/pyright --pythonpath $(BIN)/python; \
	elif [ -n "$$CI" ]; then cat $(VENV)/pyright.log; echo 'pyright does not run here'; exit 1; \
	else echo 'SKIPPED: pyright does not run here:'; tail -n 3 $(VENV)/pyright.log; fi

# What griffe says of docstrings is not yet counted by --strict.
docs: $(READY)
	@set -o pipefail; $(BIN)/zensical build --strict --clean --config-file mkdocs.yml 2>&1 | \
		tee $(VENV)/docs.log
	@! grep -q '^griffe: ' $(VENV)/docs.log

# About an hour; MUTANTS="stephttp.engine.rules.conditions*" narrows them.
mutation: $(READY)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[mutation]'
	@nice -n 10 $(BIN)/python -m tests.mutation $(MUTANTS)

bench: $(READY)
	@$(BIN)/python -m benchmarks $(BENCH)

boundaries: $(READY)
	@$(BIN)/python -m tests.faults.boundaries $(CRASHES)

faults: $(READY)
	@$(BIN)/python -m tests.faults --schedules $(SCHEDULES) $(if $(SEED),--seed $(SEED))

soak: $(READY)
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(SPARE:%=--spare %)

screenshots: $(READY)
	@$(BIN)/python -m tests.browser.screenshots screenshots

format: $(READY)
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) site .cache .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml src/stephttp/_version.py
	@set -e; \
	python=''; \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if command -v "$$candidate" >/dev/null 2>&1 && \
			"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "stephttp needs Python 3.11 or newer; $(or $(PYTHON),python3) is: $$($(or $(PYTHON),python3) --version 2>&1 || true)" >&2; \
		echo 'Install one, or name it: make PYTHON=/path/to/python3.12' >&2; exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ]; then \
		echo "==> making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv $(VENV) || { rm -rf $(VENV); \
			echo 'Python cannot make a virtual environment here (on Debian: apt-get install python3-venv).' >&2; \
			exit 1; }; \
	fi; \
	echo '==> installing stephttp and what its tests and checks need (pip install -e .[dev])'; \
	: uv does this in a third of the time. pip does it where uv cannot: a new one, because the one that; \
	: comes with Python may be years old, and take three times as long.; \
	{ $(BIN)/python -m pip install -qq uv && \
		$(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]'; } || { \
	$(BIN)/python -m pip install -qq --upgrade pip; \
	$(BIN)/python -m pip install -qq --no-compile -e '.[dev]'; }; \
	touch $(READY)
