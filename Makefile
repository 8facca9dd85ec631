# Two commands do everything: `make benchmark` and `make test`.  `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
PYTEST := $(BIN)/python -m pytest $(PARALLEL)

OLDEST := $(VENV)-oldest
LOWER_BOUNDS := import tomllib; known = tomllib.load(open("pyproject.toml", "rb"))["project"]; extras = known["optional-dependencies"]; \
	wanted = known["dependencies"] + extras["peft"] + extras["ray"] + extras["test"]; \
	print(*(one.replace(">=", "==") for one in wanted if ">=" in one), sep="\n")

DOCS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])

CARRIED_PYTHON ?= 3.12
VIT_B := --backbone vit_base_patch16_224.augreg_in21k
SPEED := run_benchmark.py speed $(VIT_B) --threads 8
COMPILED := --batch 64 32 256 --engine compiled_graphs
MEASURED := linear lora aoft_lora adaptformer vpt_deep ssf full
# The package under its name without an installation, beside what `make carry` took along for this version of Python.
# Nine minutes for all that a command runs, then what runs is interrupted, so that pytest tells what has failed; what it
# measured is stored.  What fails is told at the end and stops nothing.
ON_GPU := link=$$(mktemp -d); trap 'rm -rf "$$link"' EXIT; ln -s "$(CURDIR)" "$$link/vtab_peft"; \
	carried="$(CURDIR)/carry/python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; \
	[ ! -d "$$carried" ] || ln -s "$$carried"/* "$$link"; \
	export PYTHONPATH="$$link$${PYTHONPATH:+:$$PYTHONPATH}"; \
	SECONDS=0; status=0; timed() { timeout --foreground --signal=INT --kill-after=20 \
	$$((SECONDS < 540 ? 540 - SECONDS : 1)) $(PYTHON) "$$@"; }; \
	try() { timed "$$@" || { code=$$?; status=1; [ $$code != 124 -a $$code != 137 ] || echo "cut off, the nine minutes are over: $$*" >&2; }; };

.PHONY: help benchmark test test-slow test-golden test-browser test-oldest package campaign lint types smoke carry gpu-check gpu-speed gpu-compare gpu-profile gpu-streams docs docs-site format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

benchmark: $(VENV)/installed  ## set up, run the smoke benchmark, print its table; runs, page and figures stay in my-results/
	@$(BIN)/vtab-peft smoke --results my-results

test: $(VENV)/installed-test  ## the fast tests: about 4 minutes on 2 cores
	$(PYTEST)

test-slow: $(VENV)/installed-test  ## the slow tests: about 25 minutes on 2 cores
	$(PYTEST) -m slow

test-golden: $(VENV)/installed-test  ## methods against numbers of their authors' or of reference code; VTAB_PEFT_GOLDEN=DIR reads another set
	$(PYTEST) -rs tests/methods/test_golden_*.py

test-browser: $(VENV)/installed-browser  ## the leaderboard page in headless Chromium
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	{ echo "Chromium is missing.  Type: sudo apt-get install chromium"; exit 1; }
	$(BIN)/python -m pytest -m browser

test-oldest:  ## the fast tests with the oldest versions that pyproject.toml allows, in an environment of their own
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet -r <($(PYTHON) -c '$(LOWER_BOUNDS)') "pyparsing<3.3" # which warns of names that old matplotlib uses
	$(OLDEST)/bin/pip install --quiet --no-deps -e .
	$(OLDEST)/bin/python -m pytest $(PARALLEL)

package: $(VENV)/installed-dev  ## build the wheel and the source archive, and run the wheel outside the checkout
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(BIN)/python -m build --outdir "$$folder" . >"$$folder/log" 2>&1 || { cat "$$folder/log"; exit 1; }; \
	! grep -A9 "^!!\|WARNING\|Deprecat" "$$folder/log" || exit 1; \
	$(BIN)/pip install --quiet --no-deps --target "$$folder/site" "$$folder"/*.whl; \
	cd "$$folder" && PYTHONPATH="$$folder/site" site/bin/vtab-peft smoke

campaign: $(VENV)/installed-test  ## 300 kill -9 at 200 moments, over sweeps of every executor
	$(BIN)/python perf/campaign.py

lint: $(VENV)/installed-dev  ## style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/installed-dev  ## static types
	$(BIN)/pyright

smoke: benchmark  ## the same as `make benchmark`

carry:  ## put packages that a GPU machine without network may lack into carry/; CARRIED_PYTHON is its version of Python
	@$(PYTHON) -m pip install --quiet --upgrade --target carry/python$(CARRIED_PYTHON) --no-deps --only-binary=:all: \
	--python-version $(CARRIED_PYTHON) msgspec

gpu-check:  ## the tests that need a CUDA device, with the Python at hand: no network, no pip
	@$(ON_GPU) try -m pytest -m gpu tests/methods/test_method_checks.py tests/benchmark/engine; exit $$status

gpu-speed:  ## measure speed on a CUDA device into perf/results, in 9 minutes: no network, no pip
	@$(ON_GPU) echo "compiling $(MEASURED), side by side"; \
	for method in $(MEASURED); do timed $(SPEED) $(COMPILED) --methods $$method --images 256 >/dev/null 2>&1 & done; wait; \
	try $(SPEED) $(COMPILED) --images 2048 --methods $(MEASURED) --json perf/results/speed_cuda_methods.json; \
	try perf/column.py $(VIT_B) --scale 0.1 --engine compiled_graphs; \
	try $(SPEED) --methods $(MEASURED) --engine eager --json perf/results/speed_cuda_eager.json; \
	try perf/aoft_products.py --cuda; exit $$status

gpu-compare:  ## whole cells against the loop that users write, on a CUDA device: no network, no pip
	@$(ON_GPU) try perf/compare.py --recipe uniform --epochs 20 $(VIT_B) --rounds 1 --methods lora --engine compiled_graphs --workers 12; exit $$status

gpu-profile:  ## where the time of a step goes on a CUDA device, and what would change it: no network, no pip
	@$(ON_GPU) try perf/profile_step.py --batch 64 --engine compiled_graphs eager --methods lora aoft_lora; \
	try perf/ablation.py $(VIT_B) --batch 64; try perf/vmap_runs.py; exit $$status

gpu-streams:  ## if several runs in one process gain on a CUDA device, each on its stream: no network, no pip
	@$(ON_GPU) try perf/streams.py; try perf/streams.py --compiled; try perf/roofline.py; exit $$status

docs: $(VENV)/installed  ## measure new methods and rewrite docs/methods.md from the registry
	$(BIN)/python -m vtab_peft.benchmark.commands.method_facts
	$(BIN)/vtab-peft list methods --markdown > docs/methods.md.new
	mv docs/methods.md.new docs/methods.md

docs-site: | $(VENV)/bin/python  ## build the documentation as a site into site/
	$(BIN)/pip install --quiet $$($(BIN)/python -c '$(DOCS)')
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

format: $(VENV)/installed-dev  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(OLDEST) .pytest_cache .ruff_cache *.egg-info

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing.  Type: sudo apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
	{ echo "$$($(PYTHON) --version) is too old: 3.11.4 or newer is needed.  Type: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "Python's venv module is missing.  Type: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing (PyTorch is several gigabytes; this takes minutes the first time) ..."
	$(BIN)/pip install --quiet -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/installed
	$(BIN)/pip install --quiet -e ".[test]"
	@touch $@

$(VENV)/installed-browser: pyproject.toml | $(VENV)/installed-test
	$(BIN)/pip install --quiet -e ".[browser]"
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/installed-test
	$(BIN)/pip install --quiet -e ".[dev]"
	@touch $@
