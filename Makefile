# Needs Python 3.11 or later, git and make; everything else is installed into .venv.
#   make demo    set up, then see CLIP-Adapter beat zero-shot CLIP, offline
#   make test    set up, then run the tests
#   make lint    ruff and pyright
#   make bench   the reference numbers, measured again on the CLIP features in FEATURES
#   make bench-methods  every feature method on those features
#   make bench-speed    how fast pictures are embedded here, beside plain code, and in how much memory
#   make bench-demo     the paper's tables and figures on the demo's data, in minutes
#   make bench-features the same on the features in FEATURES, as far as they go
#   make reproduce      what the real thing takes; with DATA=DIR it begins
#   make docs    write docs/cli.md, docs/methods.md and the costs in docs/scale.md anew

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
NEEDS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
# The first Python here that is new enough and can make environments.
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEEDS)' 2>/dev/null && echo $$p && break; done),python3)
# Real CLIP features (imagenet.safetensors and others); they are no part of this repository.
FEATURES ?= ../shared/clip_features
# Tests run in so many processes.
JOBS ?= 2
# torch is large; uv's own limit of 30 s is short for a slow line.
export UV_HTTP_TIMEOUT ?= 300

.PHONY: setup demo test lint format bench bench-methods bench-speed bench-demo bench-features reproduce docs clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEEDS)' 2>/dev/null || { \
		echo "clip-adapter needs Python 3.11 or later with the modules venv and ensurepip."; \
		echo "Found: $(PYTHON), $$($(PYTHON) --version 2>&1)."; \
		echo "Next: install one (on Debian also its -venv package), or name it: make PYTHON=python3.12"; \
		exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@if $(PY) -m uv --version >/dev/null 2>&1 || \
		$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt uv; then \
		$(PY) -m uv pip install --compile-bytecode --python $(PY) -c constraints.txt -e ".[dev]"; \
	else \
		echo "uv cannot be installed; using pip, which takes longer."; \
		$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"; \
	fi
	@touch $@

demo: $(STAMP)
	$(VENV)/bin/clip-adapter demo

test: $(STAMP)
	$(PY) -m pytest -n $(JOBS) --dist worksteal $(TESTS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(STAMP)
	$(PY) benchmarks/reference.py --features $(FEATURES) --out benchmarks/REFERENCE.md

bench-methods: $(STAMP)
	$(PY) benchmarks/methods.py --features $(FEATURES)

bench-speed: $(STAMP)
	$(PY) benchmarks/speed/pipeline.py
	$(PY) benchmarks/speed/memory.py

bench-demo: $(STAMP)
	$(VENV)/bin/clip-adapter bench run --profile demo --out benchmarks

bench-features: $(STAMP)
	$(VENV)/bin/clip-adapter bench run --features $(FEATURES) --out benchmarks

reproduce: $(STAMP)
	@$(VENV)/bin/clip-adapter bench effort
ifdef DATA
	$(VENV)/bin/clip-adapter bench run --root $(DATA) --get --out benchmarks
else
	@echo "Begin with: make reproduce DATA=FOLDER_FOR_THE_DATA_SETS"
endif

docs: $(STAMP)
	$(PY) tools/cli_docs.py
	$(PY) tools/method_docs.py
	$(PY) tools/scale_costs.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
