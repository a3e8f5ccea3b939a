# `make demo` shows the package at work, `make test` checks it. Both set up .venv by themselves.

PYTHON ?= python3
DEMO_DIR ?= out/demo
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INTEROP := .venv-interop

# Each worker computes on one thread: several threads each would wait for one another on the same cores. Byte code is
# kept whatever the environment says, because the tests start the package many times.
QUICK := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo docs shell reference release test test-slow test-triton test-interop clean distclean

help:
	@echo "make demo       make a synthetic cohort, register a pair, evaluate it, write $(DEMO_DIR)/report.html"
	@echo "make docs       build the documentation site in out/site; open out/site/index.html"
	@echo "make shell      a shell in which corereg is a command"
	@echo "make reference  write docs/reference/{settings,cli}.md and the keywords of register from the code"
	@echo "make release    build sdist and wheel into dist, check them, print the changes"
	@echo "make test       style, types, layers and all quick tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-triton  the CUDA kernels in Triton's interpreter on the CPU; make test runs them too"
	@echo "make test-interop  transforms in the hands of ANTs, nitransforms and napari (in $(INTEROP) of its own)"
	@echo "make clean      remove what the above made; make distclean removes $(VENV) too"

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing corereg and its tools into $(VENV) (the first time takes a few minutes)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c constraints.txt
	@touch $@

demo: $(INSTALLED)
	$(BIN)/corereg demo -o $(DEMO_DIR)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

shell: $(INSTALLED)
	@echo "corereg is a command here; exit to leave"
	@. $(BIN)/activate && exec "$${SHELL:-sh}"

reference: $(INSTALLED)
	$(BIN)/python docs/generate_reference.py

release: $(INSTALLED)
	$(BIN)/python packaging/release.py

test: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(QUICK)

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

test-triton: $(INSTALLED)
	TRITON_INTERPRET=1 $(BIN)/pytest tests/geometry/kernels/test_cuda.py tests/method/*/test_kernels_cuda.py

test-interop: $(INTEROP)/.installed
	$(INTEROP)/bin/pytest -p no:napari -p no:npe2 tests/interop/*.py tests/io tests/integrations

$(INTEROP)/.installed: pyproject.toml constraints.txt
	@echo "Installing corereg beside other tools into $(INTEROP) (the first time takes a few minutes)"
	@test -x $(INTEROP)/bin/pip || $(PYTHON) -m venv $(INTEROP)
	@echo '*' > $(INTEROP)/.gitignore
	@$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check \
		-e '.[test,interop,mesh,monai,napari,onnx]' -c constraints.txt
	@touch $@

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(INTEROP)
