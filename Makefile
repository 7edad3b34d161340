# Safe-Net Atlas. `make help` lists the targets; each builds the virtual environment first when it is missing.
PYTHON ?= python3.11
VENV   ?= .venv
CONFIG ?= configs/demo.toml
RUN    ?= runs/$(basename $(notdir $(CONFIG)))
JOBS   ?= configs/slurm.toml
FILE   ?= tests
K      ?=
ATLAS   = $(VENV)/bin/atlas
STAGES  = index extract cam stats render report pixels
READY   = $(VENV)/.ready
DEV     = $(VENV)/.ready-dev
PYTEST  = $(VENV)/bin/python -m pytest

# pip compiles files one by one, those of the packages' own tests too, and takes longer for it than for all the rest.
INSTALL = $(VENV)/bin/pip install --quiet --no-compile --constraint constraints.txt
COMPILE = $(VENV)/bin/python -m compileall -q -j 0 -x '/tests?/|/testing/_internal/' $(VENV)/lib safenet stages pipeline

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults test-cluster coverage docs lint bench bench-gpu clean train run submit $(STAGES)

help:  ## Show this list
	@sed 's/$$(STAGES)/$(STAGES)/' $(MAKEFILE_LIST) | awk -F ':.*## ' \
		'/^## / {printf "\n%s\n", substr($$0, 4)} /^[a-z].*:.*## / {printf "  make %-52s %s\n", $$1, $$2}'

## Use

setup: $(READY)  ## Make the virtual environment (about a minute, 1.7 GB)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[network]'
	-$(COMPILE)
	@touch $@

demo: $(READY)  ## Scenes, a few epochs of training, all stages, a report
	$(ATLAS) demo

$(STAGES) run train: $(READY)  ## One stage (or all but pixels: run) on your data: CONFIG=configs/x.toml RUN=runs/x
	$(ATLAS) $@ --config $(CONFIG) --run $(RUN)

submit: $(READY)  ## The stages as jobs of a SLURM cluster: CONFIG=configs/x.toml RUN=runs/x JOBS=configs/slurm.toml
	$(ATLAS) submit --config $(CONFIG) --run $(RUN) --jobs $(JOBS)

## Develop

$(DEV): $(READY)
	$(INSTALL) --editable '.[dev]'
	-$(COMPILE)
	@touch $@

test: $(DEV)  ## Run the tests, or some: FILE=tests/pipeline/store K=marks
	$(PYTEST) --numprocesses auto --dist loadfile --durations 10 $(FILE) -k '$(K)'

test-faults: $(DEV)  ## Break every stage at hundreds of steps (20 to 30 minutes)
	$(PYTEST) -m faults -v

test-cluster: $(DEV)  ## Stages as jobs of a real SLURM of one node, whose tasks are killed and requeued (as root, on Linux)
	@tests/cluster/install-slurm
	$(PYTEST) -m cluster -v -s

coverage: $(DEV)  ## The tests again, counting the lines and branches that they take
	$(PYTEST) --numprocesses auto --dist loadfile --cov --cov-report term:skip-covered

docs: $(VENV)/.ready-docs  ## The pages of docs/ and an API reference as HTML: build/docs/index.html
	rm -rf docs/api build/docs
	$(VENV)/bin/sphinx-build -W --keep-going --quiet -d build/doctrees docs build/docs
	@echo open build/docs/index.html

$(VENV)/.ready-docs: $(DEV)
	$(INSTALL) --editable '.[docs]'
	@touch $@

lint: $(DEV)  ## ruff, mypy, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(DEV)  ## Benchmarks (side-by-side ratios)
	$(VENV)/bin/python benchmarks/bench_start.py
	$(VENV)/bin/python benchmarks/bench_extract.py
	$(VENV)/bin/python benchmarks/bench_store.py
	$(VENV)/bin/python benchmarks/bench_layout.py
	$(VENV)/bin/python benchmarks/bench_map_layout.py
	$(VENV)/bin/python benchmarks/bench_cam.py
	$(VENV)/bin/python benchmarks/bench_stats.py
	$(VENV)/bin/python benchmarks/bench_scale.py

bench-gpu: $(READY)  ## On a machine with CUDA: forward limit, extraction with all tensors, writer, PCIe (under 5 minutes)
	$(VENV)/bin/python benchmarks/bench_gpu.py

clean:  ## Remove the environment and caches (runs/ is kept)
	rm -rf $(VENV) build docs/api *.egg-info .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
