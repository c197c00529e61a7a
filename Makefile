# Two commands do all the set-up: `make demo` and `make test`. Each builds .venv from the lock file by itself.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed
# one thread for BLAS: many small problems, run side by side
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.PHONY: demo test lint types check calibration push nightly release references synthetic bench bench-peers lock clean

demo: $(STAMP)
	$(BIN)/trialkit demo -o demo --force

# a worker a core; the tests of a file stay together
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "trialkit needs Python 3.11, 3.12 or 3.13 (with venv); none was found. Name one: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

# the slower tier: many more problems against oracles; stored simulation results are made again and compared
calibration: $(STAMP)
	$(BIN)/python -m pytest -m slow

# tiers of the calibration: at every push the fixed seeds, in a minute or two; each night all that is stored made again and fresh trials whose
# seed is the date; before a release 100,000 of them a cell
push: $(STAMP)
	$(BIN)/python -m pytest -m "calibration and not slow" tests/calibration

nightly: $(STAMP) calibration
	$(BIN)/python tests/calibration/test_exact_sizes.py --seed $$(date -u +%Y%m%d) --trials 20000

release: $(STAMP) calibration
	$(BIN)/python tests/calibration/test_exact_sizes.py --seed $$(date -u +%Y%m%d) --trials 100000

# the shipped data sets, made again from their scenario
synthetic: $(STAMP)
	$(BIN)/python synthetic_data/generate.py

bench: $(STAMP)
	for b in $(filter-out benchmarks/bench_mixed_peers.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$b || exit 1; done

# beside the mixed-model packages of PyPI, in a virtual environment of their own
PEERS := .venv-peers
bench-peers: $(STAMP) $(PEERS)/.installed
	$(BIN)/python benchmarks/bench_mixed_peers.py --python $(PEERS)/bin/python

$(PEERS)/.installed: benchmarks/peers.txt
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt
	@touch $@

lock:
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements.lock

clean:
	rm -rf .venv $(PEERS) demo .mypy_cache .ruff_cache
