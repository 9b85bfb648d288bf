# make setup | test | test-newest | parity | mutants | broken-runs | demo | lint | bench: each creates .venv first; requires python >= 3.11.
# PYTHON=... chooses the interpreter of .venv; ARGS=... is passed to pytest, the campaigns or the demo.
# make test-newest tests on a second Python with the newest JAX; NEWEST_PYTHON=... chooses it.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PARITY_STAMP := $(VENV)/.installed-parity

# Tested versions first, then any newer one.
PYTHON ?= $(shell \
  usable() { "$$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, '$$2'))' >/dev/null 2>&1; }; \
  for p in python3 python python3.13 python3.12 python3.11; do usable $$p 13 && echo $$p && exit; done; \
  for p in python3 python3.14; do usable $$p 99 && echo $$p && exit; done)

# JAX 0.12 needs Python 3.12. One of another version than that of .venv; nothing where there is none.
NEWEST := .venv-newest
NEWEST_PYTHON ?= $(shell \
  version() { "$$1" -c 'import sys, ensurepip, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }; \
  for p in python3.13 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.13*/bin/python \
    python3.12 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.12*/bin/python; do \
    v=$$(version $$p) && [ "$$v" != "$$(version $(PY))" ] && echo $$p && exit; done)
# What differs most between versions of Python, JAX, NumPy and PyAV: a few minutes on two cores.
NEWEST_FILES := $(patsubst %,tests/test_%.py,imports blocks attention_impl flash_gpu blocks_sharding maskgit media)
PYTEST_PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

# Silences the start-up logs of TensorFlow and XLA.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# XLA's CPU backend allocates large buffers anew at every step: malloc keeps them, in huge pages. Commands
# do so by themselves (phenaki/io/heap.py), but for the huge pages, and in a single arena, which the
# eight devices of a test would wait for.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000

.PHONY: setup test test-newest test-newest-short newest-python parity mutants broken-runs demo lint bench
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@set -e; python='$(PYTHON)'; if [ ! -x $(PY) ]; then \
	  if [ -z "$$python" ]; then \
	    echo "error: no python >= 3.11 with the venv module found; name one: make setup PYTHON=/path/to/python" >&2; exit 2; \
	  fi; \
	  echo "making $(VENV) with $$("$$python" --version)"; "$$python" -m venv $(VENV); \
	fi
	@echo "installing phenaki and its dependencies into $(VENV) (minutes the first time)"
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

test: $(STAMP)
	$(PY) -m pytest $(PYTEST_PARALLEL) $(ARGS)

newest-python:
	@echo $(NEWEST_PYTHON)

$(NEWEST)/.installed: pyproject.toml constraints.txt
	@if [ -z "$(NEWEST_PYTHON)" ]; then \
	  echo "error: no second python 3.12 or 3.13 found; name one: make test-newest NEWEST_PYTHON=/path/to/python" >&2; exit 2; \
	fi
	@echo "installing phenaki and its dependencies into $(NEWEST) (minutes the first time)"
	@[ -x $(NEWEST)/bin/python ] || $(NEWEST_PYTHON) -m venv $(NEWEST)
	@$(NEWEST)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

test-newest: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m pytest $(PYTEST_PARALLEL) $(ARGS)

test-newest-short: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m pytest $(PYTEST_PARALLEL) $(NEWEST_FILES)

# Compares our networks with independent ones (torch and others, some GB) and prints a table of the differences.
$(PARITY_STAMP): $(STAMP)
	@echo "installing the reference implementations into $(VENV) (minutes the first time)"
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[dev,parity]'
	@touch $@

parity: $(PARITY_STAMP)
	$(PY) -m pytest tests/parity $(ARGS)

# Breaks one line of the code at a time and checks that a test fails.
mutants: $(STAMP)
	$(PY) tests/campaigns/mutants.py $(ARGS)

# Injects failures into short runs and checks that the doctor names each.
broken-runs: $(STAMP)
	$(PY) tests/campaigns/broken_runs.py $(ARGS)

demo: $(STAMP)
	$(PY) scripts/demo.py $(ARGS)

lint: $(STAMP)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

bench: $(STAMP)
	$(PY) benchmarks/speed.py
