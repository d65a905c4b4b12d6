# Each target makes what it needs: `make demo` and `make test` work on a machine
# that has nothing but python3 (3.10 or newer) and make.
#
#   make demo      what parallax does, on your machine, in under a minute
#   make test      the tests            (make test ARGS="-k planner -x")
#   make test-full the tests that are run small otherwise, at full size (minutes)
#   make browser   the timeline's page in a Chromium of the system, without a window
#   make lint      ruff check, ruff format --check
#   make types     mypy --strict, pyright --verifytypes
#   make matrix    the tests on every Python found, free-threaded ones too
#   make conformance  CPython's own tests of concurrent.futures against parallax's executors
#   make chaos     ten minutes of random calls whose workers are killed (make chaos ARGS="--seconds 30")
#   make docs      the pages in docs/ as a site, docs/_build/index.html; warnings are errors
#   make bench     the routing benchmark (make bench ARGS="--help")
#   make dev       the environment with everything, for work on parallax itself
#   make clean     removes the environment and all that was built
#
# `matrix` and `conformance` use every Python that noxfile.py finds; NOX_PYTHONS=DIR:DIR names more
# places. `make matrix ARGS="--tags ends"` and `make conformance TAGS=conformance-ends` take the
# oldest and the newest of them.
#
# One environment, .venv, grows by what a target needs. Its stamp files are older
# than pyproject.toml when something must be installed again. Sources need no
# reinstall: the package is installed in editable mode.

PYTHON ?= $(shell for p in python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
ARGS ?=
TAGS ?= conformance

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
STAMP := $(VENV)/.installed

# The tests start hundreds of interpreters, each of which would compile the whole package.
unexport PYTHONDONTWRITEBYTECODE

# Two pips at once would fight over the environment.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-full browser lint lint-rules lint-format format types types-mypy types-pyright matrix conformance chaos docs bench dev clean
help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

$(STAMP)-venv:
	@test -n "$(PYTHON)" || { echo "parallax needs Python 3.10 or newer on PATH, or: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

# A bigger set contains the smaller ones, so it stamps them too.
$(STAMP)-demo: pyproject.toml | $(STAMP)-venv
	@echo "installing parallax into $(VENV)"
	@$(PIP) -e .
	@touch $@

$(STAMP)-test: pyproject.toml | $(STAMP)-venv
	@echo "installing parallax and what its tests need into $(VENV)"
	@$(PIP) -e '.[test]'
	@touch $(STAMP)-demo $@

$(STAMP)-dev: pyproject.toml | $(STAMP)-venv
	@echo "installing parallax and the tools of its developers into $(VENV)"
	@$(PIP) -e '.[dev,test]'
	@touch $(STAMP)-demo $(STAMP)-test $@

$(STAMP)-browser: pyproject.toml | $(STAMP)-venv
	@echo "installing parallax and what its tests need to drive a browser into $(VENV)"
	@$(PIP) -e '.[test,browser]'
	@touch $(STAMP)-demo $(STAMP)-test $@

$(STAMP)-bench: pyproject.toml | $(STAMP)-venv
	@echo "installing parallax and what its benchmarks compare it with into $(VENV)"
	@$(PIP) -e '.[bench]'
	@touch $(STAMP)-demo $@

$(STAMP)-docs: pyproject.toml | $(STAMP)-venv
	@echo "installing parallax and what makes its pages into $(VENV)"
	@$(PIP) -e '.[docs]'
	@touch $(STAMP)-demo $@

demo: $(STAMP)-demo
	@$(PY) -m parallax demo $(ARGS)

test: $(STAMP)-test
	$(PY) -m pytest $(ARGS)

# A later -m takes the place of the one in pyproject.toml.
test-full: $(STAMP)-test
	TEST_EXAMPLES=all $(PY) -m pytest -m "full or hypothesis" $(ARGS)

browser: $(STAMP)-browser
	@chromium --version || chromium-browser --version || { \
		echo "no Chromium that starts is on PATH; on Debian, as root: apt-get install chromium" >&2; exit 1; }
	$(PY) -m pytest -m full tests/test_timeline_browser.py $(ARGS)

# Two targets each, so that `make -k lint types` shows everything there is to mend.
lint: lint-rules lint-format
lint-rules: $(STAMP)-dev
	$(PY) -m ruff check .
lint-format: $(STAMP)-dev
	$(PY) -m ruff format --check .

format: $(STAMP)-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: types-mypy types-pyright
types-mypy: $(STAMP)-dev
	$(PY) -m mypy --strict
types-pyright: $(STAMP)-dev
	@# --verifytypes ignores --pythonpath and asks the first python on PATH where packages are.
	PATH="$(abspath $(VENV))/bin:$$PATH" PYRIGHT_PYTHON_IGNORE_WARNINGS=1 \
		$(PY) -m pyright --verifytypes parallax --ignoreexternal

matrix: $(STAMP)-dev
	$(PY) -m nox $(ARGS)

conformance: $(STAMP)-dev
	$(PY) -m nox --tags $(TAGS) $(ARGS)

chaos: $(STAMP)-test
	$(PY) -m tests.chaos $(ARGS)

# PARALLAX_DOCS_OFFLINE=1 needs no network, and makes no links to Python's own pages.
docs: $(STAMP)-docs
	$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build $(ARGS)

bench: $(STAMP)-bench
	$(PY) -m benchmarks routing $(ARGS)

dev: $(STAMP)-dev $(STAMP)-bench

clean:
	rm -rf $(VENV) .nox build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
