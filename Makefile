# Everything a user or maintainer runs. Needs python3 >= 3.11 and make; each target does its own set-up in .venv, once.
#   make demo PYTHON=python3.13     another interpreter
#   make test ARGS="-k pacing"      more words for the tool behind a target (also bench, demo, sim)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST := $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help demo sim test test-long lint format type cov bench conformance soak endure nightly mutate fuzz audit constraints clean

help:
	@echo "make demo         everything at once, against a simulated exchange on this machine"
	@echo "make sim          a simulated exchange on http://127.0.0.1:8600, until Ctrl-C"
	@echo "make test         all tests, but for those that take long"
	@echo "make test-long    those that take long: benches, a short soak, other clients against the simulator"
	@echo "make lint         ruff: rules and formatting (make format puts the formatting right)"
	@echo "make type         mypy --strict, and pyright where it is at hand"
	@echo "make cov          tests with branch coverage; core/ and the wire decoder must be at 100 %"
	@echo "make bench        benchmarks against a simulator in its own process"
	@echo "make conformance  ccxt, pyupbit, cryptofeed and upbit-sdk against the simulator, each in an environment of its own"
	@echo "make soak         a long run against everything that can go wrong: HOURS=1, or MINUTES=2; the report: bench/results/soak"
	@echo "make endure       DAYS=30 of market in virtual time, over the end of a year; the report: bench/results/endurance.json"
	@echo "make nightly      every property on 5,000 examples, chosen anew each time: hours; ARGS=tests/core for some of them"
	@echo "make mutate       small defects put into core/, one after the other: those that no test notices; ARGS='marketpipe.core.pacing*'"
	@echo "make fuzz         damaged messages to everything that decodes them, for SECONDS=60"
	@echo "make audit        known holes of what constraints.txt names; it asks for advisories, so it needs the network"
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

# Two workers: more of them would measure each other's simulators. What is compiled is kept, wherever that is forbidden:
# some hundred processes are started, and the rewritten asserts of each file are most of the time of collecting it.
test: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= HYPOTHESIS_PROFILE=ci $(PYTEST) -q -n 2 --dist loadfile --no-loadscope-reorder -m "not long" $(ARGS)

test-long: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= HYPOTHESIS_PROFILE=ci $(PYTEST) -q -n 2 -m long $(ARGS)

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

# Without a length: two minutes. The last line is the verdict; ARGS="--seed 8 --out elsewhere".
soak: $(VENV)/.installed-dev
	$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),0) --hours $(or $(HOURS),0) $(ARGS)

# A line for each day, and the verdict; ARGS="--seed 8".
endure: $(VENV)/.installed-dev
	$(BIN)/python -m bench.endurance --days $(or $(DAYS),30) $(ARGS)

# What it finds is kept in .hypothesis, and the next run of the test, under any profile but that of CI, begins with it.
nightly: $(VENV)/.installed-dev
	HYPOTHESIS_PROFILE=nightly $(PYTEST) -q -n 2 --timeout 0 -m hypothesis $(ARGS)

# Half an hour on two processors for all of core/. What the types refuse is found by them. Made in mutants/.
mutate: $(VENV)/.installed-dev
	@$(INSTALL) mutmut==3.8.1
	@export PATH="$(abspath $(BIN)):$$PATH" HYPOTHESIS_PROFILE=dev; mutmut run $(ARGS) && mutmut results

conformance: $(VENV)/.installed-dev
	@$(BIN)/python -m bench.conformance $(ARGS)

# atheris leads the damage by coverage. Where there is no wheel of it, the damage is at random, and as good a start.
fuzz: $(VENV)/.installed-dev
	@$(INSTALL) --only-binary :all: atheris==3.0.0 2>/dev/null || true
	cd tests && ../$(BIN)/python -m fuzz.wire $(or $(SECONDS),60)

# In an environment of its own: it is a tool, and none of what it needs is ours. Not a part of CI, for what is published
# today must not break what was good yesterday. --strict: by itself pip-audit is content with what it could not look up.
audit: $(BIN)/python
	@test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && \
	  $(VENV)/audit/bin/python -m pip install -qq --disable-pip-version-check pip-audit==2.10.1; } || { \
	  echo "make audit: pip-audit 2.10.1 could not be installed" >&2; rm -rf $(VENV)/audit; exit 2; }
	@$(VENV)/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off $(ARGS) || { \
	  code=$$?; echo "make audit: failed: holes are listed above, or the advisories could not be asked: then nothing is known" >&2; exit $$code; }

constraints: $(BIN)/python
	rm -rf $(VENV)/fresh
	$(BIN)/python -m venv $(VENV)/fresh
	$(VENV)/fresh/bin/python -m pip install --quiet -U pip
	$(VENV)/fresh/bin/python -m pip install --quiet -e . --group dev
	@{ echo "# What make and CI install. Made by 'make constraints': pip freeze of the package with its dev group."; \
	  $(VENV)/fresh/bin/python -m pip freeze --exclude-editable | LC_ALL=C sort -f; } > constraints.txt
	rm -rf $(VENV)/fresh

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov dist build mutants
