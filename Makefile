# `make demo` shows the package at work, `make test` checks it. Both set up .venv by themselves.

PYTHON ?= python3
DEMO_DIR ?= out/demo

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-slow clean distclean

help:
	@echo "make demo       make a synthetic cohort, register a pair, evaluate it, write $(DEMO_DIR)/report.html"
	@echo "make test       style, types, layers and all quick tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make clean      remove what the above made; make distclean removes $(VENV) too"

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing corereg and its tools into $(VENV) (the first time takes a few minutes)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c constraints.txt
	@touch $@

demo: $(INSTALLED)
	$(BIN)/corereg demo -o $(DEMO_DIR)

test: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
