# demo: the main job on this machine.  test: everything.  check: lint and types.
# chaos: 200 kill -9 and every seam, some minutes.  mutants: each promise switched off, and who notices.
# bench: CPU seconds and memory beside their budgets; bench-peers: others beside ours.
# lock: the pinned dependencies, each at its pinned version as long as that fits; UPGRADE=1: the newest of each.
.PHONY: demo test chaos mutants check bench bench-peers lock schemas venv clean

VENV := .venv
BIN  := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Three for each processor: tests of real servers mostly wait for them. `worksteal` leaves the tests of a file together,
# so that few workers start the same server.
PYTEST ?= -n $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) * 3))) --dist worksteal
# What Python compiles is kept, also where the environment forbids it: each worker would compile all of it anew.
COMPILED := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.pytest_cache/pyc
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

demo: venv
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: venv
	@sh .ci/system-packages
	$(COMPILED) $(BIN)/python -m pytest $(PYTEST)

# Everything that `make test` does only a part of: 200 kill -9, a death at every seam of real processes, at every
# effect in every changed world, three machines at one bucket of every kind, and longer lives of random projects. SEED=N replays a run that failed.
CHAOS_SEED := $(if $(SEED),$(SEED),$(shell date +%s))
chaos: venv
	@sh .ci/system-packages
	@echo "make chaos SEED=$(CHAOS_SEED)"
	$(BIN)/python -m tests.chaos.chaos --kills 200 --seed $(CHAOS_SEED)
	DSTACK_TEST_SEAMS=all $(BIN)/python -m pytest $(PYTEST) tests/project/test_seams.py
	DSTACK_TEST_CRASHES=all $(BIN)/python -m pytest $(PYTEST) tests/engine/test_crash.py tests/engine/test_crash_500.py tests/backends/aws/test_ticks.py
	DSTACK_TEST_STORM=all $(BIN)/python -m pytest $(PYTEST) tests/engine/test_three_machines.py tests/backends/aws/test_storm.py tests/planner/test_retire.py
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest $(PYTEST) -o faulthandler_timeout=0 \
		--hypothesis-seed=$(CHAOS_SEED) tests/engine/test_machine.py tests/planner/test_laws_planner.py tests/cli/test_fuzz.py

# One alone: python -m tests.chaos.mutants NAME
mutants: venv
	$(BIN)/python -m tests.chaos.mutants

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run .ci/system-packages .ci/npm-packages examples/*.sh reconciler/hosts/programs/*.sh backends/boot/*.sh backends/ssh/*.sh
	$(BIN)/python -m pytest tests/project/test_schema.py -k committed

bench: venv
	@$(BIN)/python -m bench.run

bench-peers: venv
	$(BIN)/python -m bench.peers

schemas: venv
	$(BIN)/python -m schemas.documents.generate

# Hashes of every file of every version, for each Python that we support; no index is named.
lock: venv
	$(PIP) install uv
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(if $(UPGRADE),--upgrade) \
		--extra test --extra quality --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		pyproject.toml -o requirements.lock

venv: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { sh .ci/system-packages venv && $(PYTHON) -m venv --clear $(VENV); }
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) dist build bench/out .mypy_cache .ruff_cache .pytest_cache .hypothesis
