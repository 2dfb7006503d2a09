# `make` lists the targets. `make demo` and `make test` need nothing but Python >= 3.11:
# both build the environment in .venv first, from the exact versions in constraints.txt.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PEERS  := $(VENV)/.peers
DEVICE ?= cpu
TEST_WORKERS ?= 2 # processes; files of tests are shared among them
# In their order, which ends with the shortest ones: then no process waits long for another.
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# Small networks gain nothing from many threads, and runs side by side slow each other down.
export OMP_NUM_THREADS ?= 2
export MKL_NUM_THREADS ?= $(OMP_NUM_THREADS)
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all bench check format docs clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## build the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "torchrl_stein needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV) (6 to 7 GB with CUDA, see CONTRIBUTING.md for less) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  -c constraints.txt -e '.[recipes,test,docs]'
	@touch $@

demo: $(STAMP) ## train soft Q-learning on the four-goal world and draw the picture
	@$(BIN)/python recipes/soft_q.py

check: $(STAMP) ## formatting, lint and types
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@echo "format, lint and types: ok"

test: $(STAMP) ## what a change must pass: check, the documentation, all tests but the slow ones
	@$(MAKE) --no-print-directory -j 2 check docs # neither uses more than one core
	@$(PYTEST) -m "not slow"

test-all: $(STAMP) ## the same, and the slow tests
	@$(MAKE) --no-print-directory -j 2 check docs
	@$(PYTEST)

bench: $(PEERS) ## speed beside other libraries; DEVICE=cuda on a GPU
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed --device $(DEVICE)

$(PEERS): $(STAMP)
	@echo "Installing the libraries to compare with into $(VENV) (0.6 GB) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

format: $(STAMP) ## rewrite the code in the house format and apply the safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

docs: $(STAMP) ## build the documentation site; a warning is an error
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "The site: docs/_build/html/index.html"

clean: ## remove caches and built pages; keeps .venv and runs
	@rm -rf docs/_build build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find torchrl_stein tests recipes benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## clean, and remove .venv too
	@rm -rf $(VENV)
