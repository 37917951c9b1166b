# Two commands for a fresh machine that has Python >= 3.11 and make:
#   make demo    set up, train on the built-in photographs, evaluate, write runs/demo/report.html
#   make test    set up, run all tests
# And one for those who change the code:
#   make check   format, lint, types, floors, fast tests (the same as scripts/check)
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test check setup clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(VENV)/bin/striate train builtin --recipe small --name demo
	$(VENV)/bin/striate evaluate runs/demo
	@echo "Report: runs/demo/report.html"

# One thread for each test process: more than cores is ruinous.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n auto --maxprocesses 4

check: $(VENV)/installed-test
	scripts/check

setup: $(VENV)/installed-test

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# The environment is made once; packages are installed again only when pyproject.toml is newer.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "striate needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)."; \
	    echo "Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "'$(PYTHON) -m venv' does not work here. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing striate into $(VENV); torch is large, so the first time takes minutes ..."
	$(PIP) install -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	@echo "Installing striate and its test tools into $(VENV); torch is large, so the first time takes minutes ..."
	$(PIP) install -e '.[test]'
	@touch $@ $(VENV)/installed
