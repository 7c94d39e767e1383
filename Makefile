SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test check bench screenshots bless clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
export NXTOOLS_CACHE ?= $(CURDIR)/$(DEMO)/cache

# What the demo needs, and what the tests need on top.
$(VENV)/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/dev: $(VENV)/base
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

# The pages are tested in a real browser: one that is there, or else one that is installed now.
$(VENV)/browser: $(VENV)/dev tests/browsing.py
	$(BIN)/python tests/browsing.py
	touch $@

demo: $(VENV)/base
	mkdir -p $(DEMO)
	PATH="$(CURDIR)/$(BIN):$$PATH"; \
	nx-record --subject samples/pydoc-1m python-docs | nx-top | nx-explain | nx-score -o $(DEMO)/scored.jsonl
	$(BIN)/python samples/show.py $(DEMO)/scored.jsonl
	$(BIN)/nx-connect --subject samples/pydoc-1m $(DEMO)/scored.jsonl | $(BIN)/nx-view -o $(DEMO)/report.html
	@echo "Every neuron on a page of its own: $(CURDIR)/$(DEMO)/report.html"

test: check $(VENV)/browser
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev
	$(BIN)/python benchmarks/run.py

# Pictures for the docs, of the demo.
screenshots: $(VENV)/browser
	test -f $(DEMO)/scored.jsonl || $(MAKE) demo
	$(BIN)/python docs/screenshots.py $(DEMO)/scored.jsonl

bless: $(VENV)/dev
	$(BIN)/python -m pytest tests/test_golden.py --bless

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
