# make reproduce   everything, from an empty machine to the book in _build/html
# make test        everything that can be checked
# make help        the rest
SHELL := bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
PROFILE ?= demo
DATA_ROOT ?=
DEVICE ?=
JOBS ?= 2
PY := $(VENV)/bin/python
FORCED := $(if $(filter 1 yes true,$(FORCE)),--force)
export PYTHONHASHSEED := 0

.PHONY: help env lock fetch run reproduce book audit audit-browser test lint unit nbcheck nbval smoke clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16
	@echo 'settings: PROFILE=demo|photos|paper DATA_ROOT=folder DEVICE=auto|cpu|cuda FORCE=1 JOBS=2 PYTHON=python3.11'

env: ## create or update .venv from requirements.txt (uv if present, else venv and pip)
	@$(PYTHON) book/tools/make_env.py $(VENV)

lock: ## write requirements.txt from pyproject.toml (needs uv; UPGRADE=1 takes the newest versions)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --all-extras --universal \
	  --python-version 3.11 $(if $(UPGRADE),--upgrade) --no-emit-index-url --no-emit-find-links -q -o requirements.txt
	@echo "requirements.txt: $$(grep -c == requirements.txt) packages"

fetch: env ## weights and demo data into the cache folder
	@echo "== weights and demo data"
	@$(PY) -m sempart_core fetch weights demo
	@$(PY) -m sempart_core fetch u2netp || echo "U2-NetP was not fetched: the supervised rows will say 'not run here'"

run: env ## run the notebooks whose inputs changed (FORCE=1: all), write rows
	@echo "== notebooks, profile $(PROFILE)"
	@$(PY) book/tools/nb.py run --profile $(PROFILE) $(if $(DATA_ROOT),--data-root "$(DATA_ROOT)") \
	  $(if $(DEVICE),--device $(DEVICE)) -j $(JOBS) $(FORCED)

reproduce: ## environment, weights, data, notebooks, rows, book, audit
	@began=$$SECONDS; set -e; \
	$(MAKE) fetch; \
	$(MAKE) run; \
	$(MAKE) book; \
	echo "reproduce: done in $$((SECONDS - began)) s; open _build/html/index.html"

book: env ## render what is committed, without executing; warnings are errors; then the audit
	@echo "== book"
	@$(PY) book/tools/build_book.py $(FORCED)

audit: env ## dead links, outside requests, missing alt texts of the built book
	@$(PY) book/tools/check_site.py _build/html

audit-browser: env ## the built book in a headless browser: requests, console, phone width, axe
	@$(PY) book/tools/browser_audit.py _build/html $(AUDIT)

test: ## ruff, unit and parity tests, notebooks (pairs, nbval, smoke), book, audit
	@began=$$SECONDS; set -e; \
	for step in env lint fetch unit nbcheck nbval smoke book audit; do $(MAKE) $$step; done; \
	echo "test: all passed in $$((SECONDS - began)) s; unit and parity tests:"; \
	tail -n 1 _build/pytest.log

lint: env
	@echo "== ruff"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

unit: env ## unit and parity tests (ARGS="-k name" chooses)
	@echo "== unit and parity tests"
	@mkdir -p _build
	@set -eo pipefail; OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal --benchmark-disable -q tests/parity tests $(ARGS) \
	  | tee _build/pytest.log

nbcheck: env
	@echo "== notebook pairs and freshness, README"
	@$(PY) book/tools/nb.py check
	@$(PY) book/tools/readme.py --check

nbval: env ## run the light notebooks and compare each output with the committed one
	@echo "== nbval"
	@$(PY) book/tools/nb.py compare

smoke: env ## every notebook once, on a few images, writing no rows
	@echo "== every notebook in the smoke profile"
	@$(PY) book/tools/nb.py run --profile smoke -j $(JOBS)

clean: ## delete what is built (not the environment, not the cache of weights and data)
	@rm -rf _build runs
