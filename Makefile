# One command makes the table, one runs the tests; both install what they need when it is missing.
.DEFAULT_GOAL := help
.PHONY: help install check format lint typecheck imports test test-slow train unlearn sweep \
	reproduce-table reproduce-method tune report figures bench docs methods-page clean

# ---- what may be set: make reproduce-table DATA=cifar10 MODELS=resnet18 SEEDS=0,1 ----------------
DATA ?= digits
PRESET ?= cpu
JOBS ?= 2
ARGS ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)

VENV := .venv
STAMP := $(VENV)/.installed
RUN := $(VENV)/bin/orthounlearn

# Lists become Hydra lists; METHODS may also be the name of a file in conf/methods.
AXES = $(if $(MODELS),'table.models=[$(MODELS)]') $(if $(REGULARIZERS),'table.regularizers=[$(REGULARIZERS)]') \
	$(if $(FORGET),'table.forget=[$(FORGET)]') $(if $(SEEDS),'table.seeds=[$(SEEDS)]') \
	$(if $(COLUMNS),'table.columns=[$(COLUMNS)]') \
	$(if $(METHODS),$(if $(wildcard conf/methods/$(METHODS).yaml),methods=$(METHODS),'table.methods=[$(METHODS)]'))

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET [VARIABLE=VALUE ...]\n"} \
	  /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: DATA=$(DATA) PRESET=$(PRESET) JOBS=$(JOBS) ARGS='Hydra overrides'; for tables also"
	@echo "MODELS=resnet18,vgg16  REGULARIZERS=none,so  METHODS=core or names  FORGET=cat,[dog,ship]  SEEDS=0,1  COLUMNS=acc/forget_test,verdict"

install: $(STAMP)  ## Make .venv with everything (once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo 'Installing into $(VENV): some minutes and about 5 GB, once.'
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

reproduce-table: $(STAMP)  ## Train, unlearn and compare everything that is missing; print the table
	$(RUN) sweep experiment=$(DATA)_$(PRESET) table.jobs=$(JOBS) $(AXES) $(ARGS)

train: $(STAMP)  ## Train one original model: make train ARGS='model=vgg16 regularizer=so'
	$(RUN) train data=$(DATA) $(ARGS)

unlearn: $(STAMP)  ## Forget a class: make unlearn ARGS='forget=3 method=soft_prune'
	$(RUN) unlearn data=$(DATA) $(ARGS)

sweep: $(STAMP)  ## Hydra multirun of unlearn: make sweep ARGS='forget=3,8 method=soft_prune,fine_tune'
	$(RUN) unlearn -m data=$(DATA) $(ARGS)

reproduce-method: $(STAMP)  ## Tables of docs/method.md: class transport and its parts, what decides in soft pruning
	$(RUN) sweep experiment=cifar10_method table.jobs=$(JOBS) $(ARGS)
	$(RUN) sweep experiment=cifar10_in_turn table.jobs=$(JOBS) $(ARGS)
	$(RUN) sweep experiment=cifar10_ablation table.jobs=$(JOBS) $(ARGS)
	$(RUN) sweep experiment=cifar10_channels table.jobs=$(JOBS) $(ARGS)
	$(RUN) sweep experiment=cifar10_channels_vgg table.jobs=$(JOBS) $(ARGS)
	$(RUN) sweep experiment=cifar10_strength table.jobs=$(JOBS) $(ARGS)
	$(RUN) sweep experiment=cifar10_scores table.jobs=$(JOBS) $(ARGS)
	$(RUN) sweep experiment=cifar10_orthogonality table.jobs=$(JOBS) $(ARGS)

tune: $(STAMP)  ## Choose settings on validation images: make tune METHODS=soft_prune,salun, or METHODS=all
	@set -e; methods=$$($(VENV)/bin/python tools/tunable.py '$(METHODS)'); for method in $$methods; do \
	  $(RUN) tune experiment=$(DATA)_$(PRESET) method=$$method $(ARGS); done

report: $(STAMP)  ## Table of all finished runs, and a page with all figures
	$(RUN) report $(ARGS)

figures: $(STAMP)  ## The same, and each figure as PNG and PDF (needs a Chrome or Chromium)
	$(RUN) report figures=true $(ARGS)

test: $(STAMP)  ## Run the tests (on real CIFAR-10 too where ORTHOUNLEARN_DATA names a folder that has it)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

test-slow: $(STAMP)  ## Run the tests with the long ones
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal --runslow $(ARGS)

methods-page: $(STAMP)  ## Write docs/methods.md from the code and the YAML
	$(VENV)/bin/python tools/methods_page.py > docs/methods.md.new
	mv docs/methods.md.new docs/methods.md

docs: $(STAMP)  ## Build the documentation into site/, readable from disk; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo 'Written: site/index.html'

lint: $(STAMP)  ## ruff, codespell, docs/methods.md up to date
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/codespell orthounlearn conf tests docs bench examples README.md CONTRIBUTING.md CHANGELOG.md tools
	$(VENV)/bin/python tools/methods_page.py --check

format: $(STAMP)  ## Let ruff put code into shape
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

typecheck: $(STAMP)  ## mypy --strict
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy examples

imports: $(STAMP)  ## The contract between the layers
	$(VENV)/bin/lint-imports

check: lint typecheck imports test  ## Everything that must be green before a commit

bench: $(STAMP)  ## Speed, as ratios of two things in one run
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m bench $(ARGS)

clean:  ## Remove caches and .venv; runs/ and data-cache/ stay
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
