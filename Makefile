# Safe-Net Atlas. `make help` lists the targets; each builds the virtual environment first when it is missing.
PYTHON ?= python3.11
VENV   ?= .venv
CONFIG ?= configs/demo.toml
RUN    ?= runs/$(basename $(notdir $(CONFIG)))
JOBS   ?= configs/slurm.toml
ATLAS   = $(VENV)/bin/atlas
STAGES  = index extract cam stats render report pixels
READY   = $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults test-cluster docs lint bench clean train run submit $(STAGES)

help:  ## Show this list
	@grep -hE '^[a-z$$()A-Z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## /\1\t/' | sed 's/$$(STAGES)/$(STAGES)/' | awk -F'\t' '{printf "  make %-46s %s\n", $$1, $$2}'

setup: $(READY)  ## Make the virtual environment (about a minute, 1.8 GB)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## Scenes, a few epochs of training, all stages, a report
	$(ATLAS) demo

test: $(READY)  ## Run the tests
	$(VENV)/bin/python -m pytest

test-faults: $(READY)  ## Break every stage at hundreds of steps (20 to 30 minutes)
	$(VENV)/bin/python -m pytest -m faults -v

test-cluster: $(READY)  ## Stages as jobs of a real SLURM of one node, whose tasks are killed and requeued (as root, on Linux)
	@tests/cluster/install-slurm
	$(VENV)/bin/python -m pytest -m cluster -v -s

docs: $(VENV)/.ready-docs  ## The pages of docs/ and an API reference as HTML: build/docs/index.html
	rm -rf docs/api build/docs
	$(VENV)/bin/sphinx-build -W --keep-going --quiet -d build/doctrees docs build/docs
	@echo open build/docs/index.html

$(VENV)/.ready-docs: $(READY)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

lint: $(READY)  ## ruff, mypy, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(STAGES) run train: $(READY)  ## One stage (or all but pixels: run) on your data: CONFIG=configs/x.toml RUN=runs/x
	$(ATLAS) $@ --config $(CONFIG) --run $(RUN)

submit: $(READY)  ## The stages as jobs of a SLURM cluster: CONFIG=configs/x.toml RUN=runs/x JOBS=configs/slurm.toml
	$(ATLAS) submit --config $(CONFIG) --run $(RUN) --jobs $(JOBS)

bench: $(READY)  ## Benchmarks (side-by-side ratios)
	$(VENV)/bin/python benchmarks/bench_extract.py
	$(VENV)/bin/python benchmarks/bench_store.py
	$(VENV)/bin/python benchmarks/bench_layout.py
	$(VENV)/bin/python benchmarks/bench_cam.py
	$(VENV)/bin/python benchmarks/bench_scale.py

clean:  ## Remove the environment and caches (runs/ is kept)
	rm -rf $(VENV) build docs/api *.egg-info .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
