# What one does here. `make` alone lists it.
.SILENT:
.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt bench proof mutants soak migration schema lock clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Output is for the reader: with ARGS more goes to the program behind, as in
# `make test ARGS="-k fence"`.
ARGS ?=

help: ## this list
	awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

setup: $(READY) ## the environment, from requirements.lock

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"viewkeeper needs Python 3.11 or newer, this is " + sys.version.split()[0] + \
		": make setup PYTHON=python3.12")'
	echo "setting up .venv (once for each requirements.lock)"
	$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(PIP) install --require-hashes --no-compile -r requirements.lock
	$(PIP) install --no-compile --no-deps --no-build-isolation -e .
	# On all processors, and once: where Python writes no bytecode by itself, every process that the
	# tests start would compile its libraries anew, which takes longer than what most of them do.
	-$(BIN)/python -m compileall -q -j 0 .venv/lib $(dir $(wildcard */__init__.py))
	touch $@

demo: $(READY) ## everything at work on this machine; SECONDS=30 stops by itself
	exec $(BIN)/viewkeeper demo $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

test: $(READY) ## all tests, on real servers
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY) ## format, lint, types, import contracts
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fmt: $(READY) ## format, and fix what lint can fix
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

bench: $(READY) ## measure against others; FULL=1 takes all of them
	$(BIN)/python -m bench $(if $(FULL),--full) $(ARGS)

proof: $(READY) ## the long runs, by hand; those with faults for three seeds
	$(BIN)/python -m pytest -m proof --timeout 0 --faults-report docs/proof/faults.md $(ARGS)
	for seed in 2 3; do \
		$(BIN)/python -m pytest -m proof --timeout 0 --faults-report docs/proof/faults.md \
			--fault-seed $$seed tests/faults $(ARGS) || exit 1; \
	done

soak: $(READY) ## faults every 10-20 s under load; MINUTES=10 SEED=1 BROKERS=1
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1) \
		--brokers $(or $(BROKERS),1) $(ARGS)

mutants: $(READY) ## seeded bugs, each of which a test must find
	$(BIN)/python -m tests.faults.mutants $(ARGS)

migration: $(READY) ## a new migration from what changed in views/: M="add product sales"
	$(if $(M),,echo 'make migration M="what it does"' >&2; exit 2)
	$(BIN)/alembic revision --autogenerate -m "$(M)"

schema: $(READY) ## api/schema.graphql from the code
	$(BIN)/python -m api.schema > api/schema.graphql

lock: $(READY) ## every lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --extra servers --extra dev pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 pyproject.toml -o requirements-run.lock
	$(BIN)/python -m bench.peers | uv pip compile --quiet --universal --generate-hashes --no-header \
		--no-emit-index-url --python-version 3.11 - -o requirements-bench.lock

clean: ## remove the environment and the caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
