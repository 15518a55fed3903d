# `make demo` and `make test` are the two commands of the README; everything else is built on them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWER := .venv-lower
# One more than the processors of a small machine: programs that tests start wait for one another.
WORKERS ?= 3
SLOW_WORKERS ?= 2
# Tests start hundreds of programs: compiled modules are kept, also where the environment says otherwise.
KEEP := PYTHONDONTWRITEBYTECODE=
SPREAD := --dist loadfile --no-loadscope-reorder --randomly-seed=
# The seed of the tests' order, `last`, or `default` for a new one.
ORDER ?= default

.PHONY: demo test coverage test-slow test-gpu test-lower lint bench chaos clean

demo: $(INSTALLED)
	$(BIN)/orchestrate run grids/quickstart.yaml
	$(BIN)/orchestrate report
	@echo 'Next: ". $(BIN)/activate" makes "orchestrate" a command of this shell ("$(BIN)/orchestrate" works without);'
	@echo 'then "orchestrate status", or open report/report.html.'

# A file at a time in several processes, each of whose computations has one thread; `make test WORKERS=0` for one.
# `COVERAGE=1` counts the statements that run, also in programs that tests start and in Ray's workers.
test: $(INSTALLED)
	$(KEEP) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) $(SPREAD)$(ORDER) \
		$(if $(COVERAGE),--cov --cov-report=term:skip-covered) $(MORE)

coverage:
	$(MAKE) test COVERAGE=1

# Two files at a time, those with the most tests first: they wait for nodes and servers. `SLOW_WORKERS=0` for one.
test-slow: $(INSTALLED)
	$(KEEP) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(SLOW_WORKERS) --dist loadfile --randomly-seed=$(ORDER)

# Needs a GPU; without one, every test says so and is skipped.
test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest tests/gpu -rs

# The tests with the oldest versions that setup.cfg allows, in a virtual environment of their own (7 GB). Old versions
# warn of what the newest ones of other packages, which have no bound here, will take away.
test-lower:
	test -x $(LOWER)/bin/python || $(PYTHON) -m venv $(LOWER)
	$(LOWER)/bin/python -m pip install --quiet uv
	$(LOWER)/bin/python -m uv pip install --quiet --python $(LOWER)/bin/python --resolution lowest-direct --editable '.[test]'
	$(KEEP) OMP_NUM_THREADS=1 $(LOWER)/bin/python -m pytest -m "not slow" -n $(WORKERS) $(SPREAD)$(ORDER) \
		-W ignore::DeprecationWarning

bench: $(INSTALLED)
	$(BIN)/python -m tests.bench

# ROUNDS=21 SEED=1 fix what is random otherwise.
chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports setup.cfg
	$(BIN)/mypy

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]' --constraint constraints.txt
	touch $@

clean:
	rm -rf $(VENV) $(LOWER) report
