# setup: an environment of its own; demo: a finished report offline; test: minutes; test-all: everything.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MOTIF := $(BIN)/motif
EXTRAS := dev,bio,music,text2sql,recsys,timeseries

.PHONY: setup demo test test-all lint
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

demo: setup
	rm -rf runs/demo
	$(MOTIF) generate domain=bio task=peptide experiment=peptide_demo out=runs/demo

test: setup
	$(BIN)/python -m pytest -q -m "not slow" -n 2

test-all: setup
	$(BIN)/python -m pytest -q -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
