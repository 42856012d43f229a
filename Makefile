# edgesparse: 'make help' lists the targets.
PYTHON ?= python3
DEVICE ?= local
PIPELINE ?= pipelines/digits.yaml
MARKS ?= not bench
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What only those need who change edgesparse: a first deploy does not wait for it.
DEVELOP := $(VENV)/.develop
# uv where it is there, else pip: both check the lock's hashes and show their progress. Bytecode is
# compiled at the first import of a module, since most modules are never imported.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv)
INSTALL := $(if $(UV),"$(UV)" pip install --python $(BIN)/python,$(BIN)/pip install \
	--disable-pip-version-check --no-compile --progress-bar $(if $(MAKE_TERMOUT),on,off))
# tests/conftest.py keeps those files together that share a long run. Where tests wait for devices,
# three files at a time keep two cores busy.
PYTEST := $(BIN)/pytest --no-loadscope-reorder -n

# Compiled modules are kept: compiling pytest's forms of all tests takes each process ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: deploy test test-full test-all test-fast coverage docs lint types bench soak clean help setup lock matrix study schemas calibrate

deploy: $(READY) ## Train, convert, deploy, benchmark: DEVICE=local PIPELINE=pipelines/digits.yaml
	@$(BIN)/edgesparse deploy $(PIPELINE) $(foreach d,$(DEVICE),--device $(d))

test: $(DEVELOP) ## Run the tests: every part once, about ten minutes
	@$(PYTEST) 3 -m "not full and not bench" --durations=10

test-full: $(DEVELOP) ## Run the exhaustive tests, about half an hour
	@$(PYTEST) 3 -m "full and not bench" --durations=10

test-all: test test-full ## Run both

coverage: $(DEVELOP) ## Measure which lines the tests run: MARKS="not bench", or "not full and not bench"
	@rm -f .coverage .coverage.*
	@COVERAGE_FILE="$(CURDIR)/.coverage" $(BIN)/coverage run -m $(notdir $(PYTEST)) 3 -m "$(MARKS)"
	@$(BIN)/coverage combine -q && $(BIN)/coverage report --skip-covered

test-fast: $(DEVELOP) ## Run the tests that take no training, about a minute
	@$(PYTEST) 2 -m "not bench and not slow and not full"

docs: $(DEVELOP) ## Build the documentation as a site, in build/docs; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict \
		--config-file edgesparse/docs/mkdocs.yml --site-dir "$(CURDIR)/build/docs"

lint: $(DEVELOP) ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEVELOP) ## Check types
	@$(BIN)/mypy

bench: $(DEVELOP) ## Measure edgesparse itself
	@$(BIN)/pytest -m bench -s

soak: $(DEVELOP) ## Break runs at random for half an hour, and look what is lost
	@$(BIN)/python -m tests.tools.soak --minutes 30

setup: $(READY) ## Make .venv with the locked dependencies

# Hashes are checked; edgesparse itself is linked, so that its source can be edited.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON); set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: Python 3.10 to 3.13 is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "making $(VENV) with $(if $(UV),uv ('make setup UV=' takes pip and its settings),pip (uv is faster)):" \
		"$$(grep -c == requirements.lock) packages, 3 GB on the disk"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# The larger first: the smaller has the same versions.
# backports-strenum 1.3 says it is for Python 3.10 only, which uv does not see.
COMPILE := echo 'backports-strenum<1.3' | uv pip compile pyproject.toml --universal \
	--python-version 3.10 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	--constraint -

$(DEVELOP): $(READY) .ci/requirements.lock
	@echo "adding to $(VENV) what tests need"
	@$(INSTALL) --require-hashes -r .ci/requirements.lock
	@touch $@

lock: ## Make requirements.lock, .ci/requirements.lock and the devices' wheels.json anew (needs uv)
	$(COMPILE) --extra dev --output-file .ci/requirements.lock
	$(COMPILE) --extra delegate --extra quantizer --constraint .ci/requirements.lock --output-file requirements.lock
	@$(BIN)/python -m tests.tools.wheel_lock

matrix: $(DEVELOP) ## Measure what each kind of sparsity gains where, and write it to the documentation
	@$(BIN)/python -m tests.tools.mechanisms

study: $(DEVELOP) ## Train with three seeds for accuracy at equal time, and write it to pipelines/README.md
	@$(BIN)/python -m tests.tools.accuracy_at_time

calibrate: $(DEVELOP) ## Hold the emulated boards against published figures of real ones
	@$(BIN)/python -m tests.tools.calibrate

schemas: $(DEVELOP) ## Write the JSON Schemas of pipelines, devices and results, and the tables of keys
	@$(BIN)/edgesparse schema pipeline > pipelines/schema.json
	@$(BIN)/edgesparse schema device > devices/schema.json
	@$(BIN)/python -m tests.tools.results_reference
	@$(BIN)/python -m tests.tools.docs_tables

clean: ## Remove .venv, caches, artifacts and runs
	rm -rf $(VENV) .edgesparse .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
