# limner's everyday commands; `make help` lists them.
# PIP_ARGS= passes options to pip, PYTHON= chooses the interpreter for a new .venv, ARGS= goes to pytest, BUILDER= (docker or
# podman), IMAGE= and BUILD_ARGS= to image.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
ENGINE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
APP := train,export,serve,$(ENGINE)
AT_ONCE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

TARGET ?= demo
IMAGE ?= limner/$(TARGET):$(if $(filter demo,$(TARGET)),dev,$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml))
BUILDER ?= $(firstword $(notdir $(shell command -v docker podman)) docker)

.DEFAULT_GOAL := help
.PHONY: help demo install tools test test-slow test-gpu check format image constraints clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.app ## Train a digit generator for a minute, export it, serve it (ONCE=1: write demo.png and stop)
	$(BIN)/limner demo $(if $(ONCE),--once) $(if $(FRESH),--fresh)

install: $(VENV)/.app ## Make .venv with limner in it (the gpu extra where nvidia-smi answers, else cpu)

tools: $(TOOLS)/.python $(TOOLS)/.node $(VENV)/k8s/.ready ## Install what some tests need apart from .venv: schemathesis, generators of clients, what checks k8s/

test: $(VENV)/.test ## Run the tests (ARGS='-k identity' chooses, ARGS=-n0: in one process)
	$(BIN)/python -m pytest -m 'not slow' $(AT_ONCE) $(ARGS)

test-slow: $(VENV)/.test ## Run the tests that take over 20 seconds
	$(BIN)/python -m pytest -m slow $(AT_ONCE) $(ARGS)

test-gpu: $(VENV)/.gpu ## Run the tests that need an NVIDIA GPU (installs TensorRT)
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(VENV)/.dev ## Lint, formatting, types and import rules: what pre-commit and CI run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## Repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

image: ## Build the image of a TARGET: demo (after make demo ONCE=1), server-cpu, server-gpu, trainer, models
	@test '$(TARGET)' != demo -a '$(TARGET)' != models -o -d models || { echo "no models/: make demo ONCE=1 first"; exit 1; }
	$(BUILDER) build --target $(TARGET) --tag $(IMAGE) \
	  --label org.opencontainers.image.revision=$(shell git rev-parse HEAD) $(BUILD_ARGS) .

constraints: $(VENV)/.dev ## Pin what is installed now
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' > constraints.txt

clean: ## Remove the environment and caches; runs, models and judges stay
	rm -rf $(VENV) $(TOOLS) .pytest_cache .hypothesis .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "limner needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.app: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[$(APP)]'
	@touch $@

$(VENV)/.test: $(VENV)/.app
	$(PIP) -e '.[$(APP),test]'
	@touch $@

$(VENV)/.gpu: $(VENV)/.test
	$(PIP) -e '.[$(APP),test,tensorrt]'
	@touch $@

$(VENV)/k8s/.ready: $(wildcard k8s/tools/*.txt k8s/tools/package.json) | $(BIN)/python
	@command -v npm >/dev/null || { echo "the schemas of custom resources need npm; on Debian: apt install npm"; exit 1; }
	for tools in . checkov; do $(BIN)/python -m venv $(VENV)/k8s/$$tools; done
	$(VENV)/k8s/bin/python -m pip install --disable-pip-version-check $(PIP_ARGS) -r k8s/tools/requirements.txt
	$(VENV)/k8s/checkov/bin/python -m pip install --disable-pip-version-check $(PIP_ARGS) -r k8s/tools/checkov.txt
	cp k8s/tools/package.json $(VENV)/k8s/
	npm install --prefix $(VENV)/k8s --no-audit --no-fund
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e '.[$(APP),test,dev]'
	@touch $@

$(TOOLS)/.python: tests/openapi/requirements.txt
	$(PYTHON) -m venv $(TOOLS)/python
	$(TOOLS)/python/bin/python -m pip install --disable-pip-version-check $(PIP_ARGS) -r $<
	@touch $@

$(TOOLS)/.node: tests/openapi/package.json
	@mkdir -p $(TOOLS)/node && cp $< $(TOOLS)/node
	npm install --prefix $(TOOLS)/node --no-package-lock --no-audit --no-fund
	@touch $@
