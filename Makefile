# Everything a user or maintainer runs. Needs python3 >= 3.11 and make; each target does its own set-up in .venv, once.
#   make demo PYTHON=python3.13     another interpreter
#   make test ARGS="-k pacing"      more words for the tool behind a target (also bench, demo, sim)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST := $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo sim test lint format type cov bench constraints clean

help:
	@echo "make demo         everything at once, against a simulated exchange on this machine"
	@echo "make sim          a simulated exchange on http://127.0.0.1:8600, until Ctrl-C"
	@echo "make test         all tests"
	@echo "make lint         ruff: rules and formatting (make format puts the formatting right)"
	@echo "make type         mypy --strict, and pyright where it is at hand"
	@echo "make cov          tests with branch coverage; core/ and the wire decoder must be at 100 %"
	@echo "make bench        benchmarks against a simulator in its own process"
	@echo "make constraints  write constraints.txt anew, from the newest versions that pyproject.toml allows"
	@echo "make clean        remove .venv and everything that tools left behind"

# -- set-up: a stamp in .venv says which of the two sets is installed ----------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "marketpipe needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)." >&2; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing marketpipe into $(VENV), once"
	@$(INSTALL) -e .
	@touch $@

# The dev group is read here, since pip knows --group only from 25.1 on.
$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'], sep='\n')" > $(VENV)/dev.txt
	@echo "installing the tools for development into $(VENV), once"
	@$(INSTALL) -r $(VENV)/dev.txt
	@touch $@

# -- for users -----------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed
	@$(BIN)/marketpipe demo $(ARGS)

sim: $(VENV)/.installed
	@$(BIN)/marketpipe sim $(ARGS)

# -- for maintainers -----------------------------------------------------------------------------------------------

# Two workers: more of them would measure each other's simulators.
test: $(VENV)/.installed-dev
	HYPOTHESIS_PROFILE=ci $(PYTEST) -q -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pyright fetches its engine when it runs for the first time: without network there is none, and mypy decides alone.
type: $(VENV)/.installed-dev
	$(BIN)/mypy
	@if $(BIN)/pyright --version >/dev/null 2>&1; then $(BIN)/pyright --pythonpath $(BIN)/python; else echo "pyright is not at hand"; fi

cov: $(VENV)/.installed-dev
	$(BIN)/coverage erase
	HYPOTHESIS_PROFILE=ci $(BIN)/coverage run -m pytest -q $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage report --include='marketpipe/core/*' --fail-under=100
	$(BIN)/coverage report --include='marketpipe/upbit/wire*' --fail-under=100

bench: $(VENV)/.installed-dev
	$(BIN)/python -m bench $(ARGS)

constraints: $(BIN)/python
	rm -rf $(VENV)/fresh
	$(BIN)/python -m venv $(VENV)/fresh
	$(VENV)/fresh/bin/python -m pip install --quiet -U pip
	$(VENV)/fresh/bin/python -m pip install --quiet -e . --group dev
	@{ echo "# What make and CI install. Made by 'make constraints': pip freeze of the package with its dev group."; \
	  $(VENV)/fresh/bin/python -m pip freeze --exclude-editable | LC_ALL=C sort -f; } > constraints.txt
	rm -rf $(VENV)/fresh

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov dist build
