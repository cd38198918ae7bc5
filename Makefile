# Needs python3 (3.11 to 3.13) and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# The tests of these jobs are a part of their own, so that two parts at a time take about as long.
TRAINING := $(wildcard $(addprefix tests/pipelines/test_,train*.py augment*.py experiment*.py))

.PHONY: help setup demo test test-library test-training test-jobs soak check fix bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(READY)  ## make .venv with the tested versions

# About 5.5 GB and two minutes the first time: torch comes with its CUDA libraries.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$$($(PYTHON) --version) found; Python 3.11 to 3.13 is needed. Name one: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## draw a gallery and take it through every step on this machine
	$(BIN)/retrieval-cli demo --output demo-output

test: test-library test-jobs test-training  ## all tests

test-library: $(READY)  ## those of retrieval/, and of files that earlier releases wrote
	$(BIN)/python -m pytest tests/retrieval tests/golden retrieval

test-jobs: $(READY)  ## those of pipelines/, on Ray, and of all else
	$(BIN)/python -m pytest --ignore=tests/retrieval --ignore=tests/golden $(TRAINING:%=--ignore=%) tests pipelines

test-training: $(READY)  ## those of pipelines/ that augment and train
	$(BIN)/python -m pytest $(TRAINING)

soak: $(READY)  ## what takes an hour or two: several hosts, chaos, faulty stores, load; prints seeds and counts
	$(BIN)/python -m pytest -m soak -s tests

check: $(READY)  ## format, lint, types, borders between the packages; advice on known holes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	-@timeout 20 $(BIN)/pip-audit --skip-editable --progress-spinner off --timeout 3 >.venv/audit 2>&1; \
	  if grep -q ' known vulnerabilit' .venv/audit && ! grep -q '^numpy .*could not be audited' .venv/audit; \
	  then grep -v 'Skip Reason\|not be audited\|skipped as editable\|^-' .venv/audit; \
	  else echo 'pip-audit: pypi.org does not answer; nothing was audited for known holes'; fi

fix: $(READY)  ## format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## measure, side by side; prints the report
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/rank_job.py --gallery 10000 --queries 100
	$(BIN)/python benchmarks/embed_memory.py

clean:  ## remove the environment and what the demo made
	rm -rf .venv demo-output
