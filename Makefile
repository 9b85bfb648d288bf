# make setup | test | parity | mutants | illnesses | demo | lint | bench: each sets up what it needs; python >= 3.11 is all it asks for.
# PYTHON=... chooses the interpreter that .venv is made from; ARGS=... goes to pytest or the demo.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PARITY_STAMP := $(VENV)/.installed-parity

# The versions that are tested first, then any newer one.
PYTHON ?= $(shell \
  usable() { "$$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, '$$2'))' >/dev/null 2>&1; }; \
  for p in python3 python python3.12 python3.11; do usable $$p 12 && echo $$p && exit; done; \
  for p in python3 python3.13 python3.14; do usable $$p 99 && echo $$p && exit; done)

# Without these TensorFlow and XLA write about their own insides before the first line of ours.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# XLA's CPU backend asks for large buffers at every step: keep them, in large pages (a quarter faster).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000

.PHONY: setup test parity mutants illnesses demo lint bench
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@set -e; python='$(PYTHON)'; if [ ! -x $(PY) ]; then \
	  if [ -z "$$python" ]; then \
	    echo "error: no python >= 3.11 with the venv module found; name one: make setup PYTHON=/path/to/python" >&2; exit 2; \
	  fi; \
	  echo "making $(VENV) with $$("$$python" --version)"; "$$python" -m venv $(VENV); \
	fi
	@echo "installing phenaki and what it needs into $(VENV) (minutes the first time)"
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

test: $(STAMP)
	$(PY) -m pytest -n auto --dist loadfile $(ARGS)

# Our networks beside independent ones (torch and others: some GB): a table of the differences.
$(PARITY_STAMP): $(STAMP)
	@echo "installing the reference implementations into $(VENV) (minutes the first time)"
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[dev,parity]'
	@touch $@

parity: $(PARITY_STAMP)
	$(PY) -m pytest tests/parity $(ARGS)

mutants: $(STAMP)
	$(PY) tests/campaigns/mutants.py $(ARGS)

illnesses: $(STAMP)
	$(PY) tests/campaigns/broken_runs.py $(ARGS)

demo: $(STAMP)
	$(PY) scripts/demo.py $(ARGS)

lint: $(STAMP)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

bench: $(STAMP)
	$(PY) benchmarks/speed.py
