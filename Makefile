# Everything runs in .venv, which is made when it is missing or when what it was made from has changed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
MINIMUM := .venv-minimum
TESTS_MINIMUM := tests/metrics tests/model tests/blocks/test_blocks.py tests/study tests/distillation tests/commands/test_end_to_end.py

.PHONY: help install search finalize test test-gpu test-timing test-full test-minimum lint clean

help:
	@echo "make search     search a decoder for the embedded teacher that gives 120 frames per second at 720x1280"
	@echo "make finalize   turn the best candidates of the newest run into finished models"
	@echo "make test       quick tests (make test-full: all of them; make lint: linter and types)"
	@echo "make test-gpu       tests that need a CUDA device"
	@echo "make test-timing    tests that measure time, one after the other; on a quiet machine"
	@echo "make test-minimum   some of the quick tests with the lowest versions that are promised"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, found $$($(PYTHON) --version 2>&1): set PYTHON=/path/to/python3.11"; exit 2; }
	@echo "installing into .venv (once, a few minutes)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

search: $(STAMP)
	$(BIN)/python -m nas.search --teacher wan-tiny --latency-budget 120fps --resolution 720x1280

finalize: $(STAMP)
	$(BIN)/python -m nas.finalize

test: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not slow and not timing"

# One process: they would slow each other down.
test-timing: $(STAMP)
	$(BIN)/python -m pytest -q -m timing

# One process: they would fill each other's memory.
test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

test-full: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not timing"
	$(MAKE) test-timing

test-minimum: $(MINIMUM)/.installed
	$(MINIMUM)/bin/python -m pytest -q -m "not slow and not timing" $(TESTS_MINIMUM)

$(MINIMUM)/.installed: pyproject.toml constraints-minimum.txt
	@echo "installing the lowest versions into $(MINIMUM) (once, a few minutes)"
	$(PYTHON) -m venv $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-minimum.txt --editable '.[dev]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv $(MINIMUM)
