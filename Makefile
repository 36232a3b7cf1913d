# The same commands for people, hooks and CI. `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Python 3.11 to 3.14; `make PYTHON=/path/to/python3.12 …` selects another Python.
PYTHON ?= python3
BIN := .venv/bin
# DVC runs each stage as `python -m …`; this selects the Python of .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export UV_PYTHON := $(BIN)/python
# Without bytecode files, every stage and plugin would compile its imports again, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE
GO := $(shell command -v go || ls /usr/local/go/bin/go 2>/dev/null)
comma := ,
# The pipeline's stages, too, never ask this machine through a proxy (`atlas` sees to it by itself).
NO_PROXIES := $(or $(no_proxy),$(NO_PROXY))
ifneq ($(http_proxy)$(HTTP_PROXY)$(https_proxy)$(HTTPS_PROXY)$(all_proxy)$(ALL_PROXY),)
ifneq ($(NO_PROXIES),*)
export no_proxy := $(if $(NO_PROXIES),$(NO_PROXIES)$(comma))127.0.0.1,localhost,::1
export NO_PROXY := $(no_proxy)
endif
endif
ifdef CI
export UV_NO_PROGRESS := 1
endif

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# --- set-up: a stamp file per lock file, so that a second run does nothing ---

.venv/setup: requirements/setup.txt
	@$(PYTHON) infra/platforms.py
	@echo "== .venv with $$($(PYTHON) -V)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/setup.txt
	@touch $@

.venv/run: .venv/setup pyproject.toml requirements/pipeline.txt requirements/infra.txt
	@echo "== packages"
	$(BIN)/uv pip install --require-hashes --requirement requirements/pipeline.txt --requirement requirements/infra.txt
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/run requirements/dev.txt
	@echo "== packages that tests and lint need"
	$(BIN)/uv pip install --require-hashes --requirement requirements/dev.txt
	@touch $@

.PHONY: setup engine
setup: .venv/run engine ## Make .venv and put the Pulumi engine in place
engine: .venv/run
	@$(BIN)/python -m infra.engine.install >/dev/null

# --- the main job ---

.PHONY: up down repro check scm
# DVC expects git, but a downloaded ZIP has no .git: DVC then works without it, until there is a repository.
scm: .venv/run
	@if [ -e .git ] || git rev-parse --git-dir >/dev/null 2>&1; then \
	  if grep -qs no_scm .dvc/config.local; then $(BIN)/dvc config --local --unset core.no_scm; fi; \
	elif ! grep -qs no_scm .dvc/config.local; then \
	  echo "== no git repository (a downloaded ZIP?): runs get no commit, and the gate no incumbent; 'git init' changes that"; \
	  $(BIN)/dvc config --local core.no_scm true; \
	fi
# The engine starts these by themselves; some programs that unpack a ZIP forget that files are executable.
	@chmod +x infra/policy/pulumi-analyzer-policy-python infra/local/pulumi-resource-local

# A stage that fails ends with its own line; what DVC adds to it, the command and its exit status, is left out.
QUIETER = 2> >(grep --line-buffered -v ': failed to run: python -m ml\.' >&2) | { grep --line-buffered -v '^> python -m ml\.' || true; }
repro: scm ## Run what has changed in the pipeline (DVC)
	@echo "== pipeline"
	@$(BIN)/dvc repro $(QUIETER)

# OFFLINE=1: download and build neither Prometheus nor Grafana.
OFFLINE ?=
check: .venv/run
	@$(BIN)/atlas check --stack local $(if $(OFFLINE),--offline)

# The checks come before the pipeline, which takes minutes.
up: setup check repro ## Set-up, pipeline, local stack; ends with the URLs and one prediction
	@echo "== local stack"
	@$(BIN)/atlas up --stack local $(if $(OFFLINE),--offline)

.PHONY: init
# TASK=… and FORCE=1 are `atlas init`'s --task and --force.
init: .venv/run ## Write a params.yaml for your own table: make init TABLE=data/churn.csv TARGET=churned
	@$(BIN)/atlas init "$(TABLE)" --target "$(TARGET)" $(if $(TASK),--task $(TASK)) $(if $(FORCE),--force)

down: ## Stop and remove everything that `make up` started; data and models stay
	@if [ -x $(BIN)/atlas ]; then $(BIN)/atlas destroy --stack local; else echo "Nothing is up: there is no .venv."; fi

# --- development ---

.PHONY: test test-fast test-peers lint lock tools policies
tools: .venv/dev ## Build the real tools that some tests use: the hosts' Prometheus and Alertmanager, providers (with Go; takes minutes, only once)
	$(BIN)/python -m tests.infra.plugins.build
	$(BIN)/python -m tests.infra.monitoring.tools.build

# Four at a time on two cores, too: half of the time, a test waits for a process or a cluster.
test: .venv/dev engine ## Install what the tests need and run them all
	$(BIN)/pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

test-fast: .venv/dev ## Run the tests that start no process and open no connection: seconds, while you edit (ARGS="…")
	$(BIN)/pytest --fast $(ARGS)

test-peers: .venv/dev ## Compare answers with `mlflow models serve`, MLServer and KServe's client (minutes, so not part of `make test`)
	PYTHONPATH="$(CURDIR)" $(BIN)/python -W ignore -m tests.peers.compare

lint: .venv/dev ## Format, lint and type-check; imports and dead code; lint and audit the workflows (with Go)
	$(if $(CI),$(BIN)/ruff format --check,$(BIN)/ruff format)
	$(BIN)/ruff check $(if $(CI),,--fix)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/vulture
	$(BIN)/zizmor --offline --no-progress --quiet .
	@if [ -n "$(GO)" ]; then echo "actionlint"; GOFLAGS=-mod=readonly $(GO) -C tests/github/tools tool actionlint "$(CURDIR)"/.github/workflows/*.yml; \
	elif [ -n "$(CI)" ]; then echo "actionlint is built with Go, and there is none" >&2; exit 1; \
	else echo "actionlint: skipped, it is built with Go, and there is none (go.dev)"; fi

policies: .venv/dev engine ## Check every stack with the policy pack: the real engine, recorded AWS
	$(BIN)/pytest tests/infra/policy tests/infra/test_policies.py

# --- the image ---

.PHONY: image smoke
IMAGE ?= atlas
# More options for the build, such as BUILD="--secret id=pip,src=$HOME/.config/pip/pip.conf".
BUILD ?=
# A folder for cached layers, also usable on another machine; needs a builder other than Docker's default.
LAYERS ?=
image: .venv/run ## Build the service's image from models/bundle (IMAGE=atlas, BUILD="…" more options, LAYERS=folder keeps layers)
	@options=$$($(BIN)/python -m infra.image_options) && eval "set -- $$options" && set -x && \
	docker buildx build --load --tag $(IMAGE) "$$@" $(BUILD) $(if $(LAYERS),--cache-from type=local$(comma)src=$(LAYERS) --cache-to type=local$(comma)dest=$(LAYERS).new$(comma)mode=max) .
	@$(if $(LAYERS),rm -rf $(LAYERS) && mv $(LAYERS).new $(LAYERS),:)

smoke: .venv/run ## Run the image as a cluster would, request a prediction, stop it (IMAGE=atlas)
	@$(BIN)/atlas ci container $(IMAGE)

# --- locks ---

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(UPGRADE)
lock: .venv/setup ## Resolve requirements/*.in again (UPGRADE=--upgrade for newer versions)
	cd requirements && export UV_PYTHON= && for audience in dev setup service full features pipeline infra; do \
	  ../$(LOCK) $$audience.in $$([ $$audience = dev ] || echo --constraints dev.txt) --output-file $$audience.txt; done
