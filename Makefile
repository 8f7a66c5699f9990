# `make` lists the targets. `make run` and `make test` set up all they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= .boardwright
# Tests that run at a time; one file's tests stay together.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Name an index with CPU builds of torch (TORCH_INDEX=https://…/whl/cpu) where plain pip would take a CUDA build.
TORCH_INDEX ?=
# Where the guides' real models and images lie (`make docs`).
EXAMPLES ?= ../shared/data
# Say INSTALL_POSTGRESQL=yes to let `make test` install Debian's postgresql by apt when you are not root (uses sudo).
INSTALL_POSTGRESQL ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check
# On a terminal pip shows how far it is: the first installation takes minutes.
PIP_INSTALL := $(PIP) install $(shell test -t 2 || echo --quiet) -c constraints.txt
MEMBERS := proto shared $(sort $(dir $(wildcard services/*/pyproject.toml)))
PACKAGES := content database device jobs model rpc samples selection telemetry toolchains testing \
            registry calibration compiler builder delivery gateway agent client cli

.DEFAULT_GOAL := help
.PHONY: help install run test lint format types contracts proto proto-check check bench bench-registry bench-transfer \
        bench-idle bench-optimize bench-compression docs reference clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(VENV)/.torch: constraints.txt
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing torch (the largest part, once; all of it takes some minutes)…"
	@$(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	@touch $@

# One pip call for all members, so that none is looked for in an index; folders with
# extras stand beside the plain ones, because older pips do not see that ./shared[x] is also boardwright-shared[y].
# They are built with the hatchling installed here: pip would fetch another one for each of them, twice.
$(VENV)/.installed: $(VENV)/.torch constraints.txt $(addsuffix /pyproject.toml,$(patsubst %/,%,$(MEMBERS)))
	@echo "Installing Boardwright and what it runs on…"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation $(addprefix -e ./,$(MEMBERS)) -e './services/cli[embedded]' -e './shared[s3,postgresql]' \
	    -e './services/compiler[engine,torch,ultralytics]' scikit-learn
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	@echo "Installing what the tests need…"
	@$(PIP_INSTALL) -r requirements-test.txt
	@touch $@

install: $(VENV)/.installed ## Create the environment in .venv

run: $(VENV)/.installed ## From a checkpoint to a running device, here; CHECKPOINT=… DATASET=… BOARD=… for your own model
	@$(BIN)/boardwright --data $(DATA) demo \
	    $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') $(if $(DATASET),--dataset '$(DATASET)') \
	    $(if $(EVALUATION),--evaluation '$(EVALUATION)') $(if $(BOARD),--board '$(BOARD)') \
	    $(if $(INPUT_SPEC),--input-spec '$(INPUT_SPEC)') $(if $(OUTPUT_SPEC),--output-spec '$(OUTPUT_SPEC)') \
	    $(if $(MODULE),--module '$(MODULE)') $(if $(MODEL),--model '$(MODEL)')

.PHONY: postgresql
postgresql:
	@if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing Debian's postgresql…"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null; \
	elif [ "$(INSTALL_POSTGRESQL)" = yes ]; then \
	    sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null; \
	else echo "PostgreSQL is not installed: the tests marked 'postgresql' will be skipped (INSTALL_POSTGRESQL=yes installs it)."; fi

test: $(VENV)/.installed-test postgresql ## Every test, with real servers
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

lint: $(VENV)/.installed-test ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test ## Format and fix what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.installed-test ## mypy --strict over every package
	$(BIN)/mypy $(patsubst %,-p boardwright.%,$(PACKAGES))

contracts: $(VENV)/.installed-test ## Import contracts: the arrows run one way
	$(BIN)/lint-imports

$(VENV)-proto/.installed: proto/requirements.txt
	$(PYTHON) -m venv $(VENV)-proto
	$(VENV)-proto/bin/python -m pip install --quiet --disable-pip-version-check -r proto/requirements.txt
	@touch $@

proto: $(VENV)-proto/.installed ## Generate the Python code from the protos
	PATH="$(abspath $(VENV)-proto/bin):$$PATH" $(VENV)-proto/bin/python proto/generate.py

# The version is exact in package.json; a lock file made on one platform misses the others' binaries.
proto/node_modules/.bin/buf: proto/package.json
	cd proto && npm install --no-audit --no-fund --no-package-lock --loglevel=error
	@touch $@

proto-check: proto proto/node_modules/.bin/buf ## buf lint, buf breaking, and: the generated code is current
	cd proto && node_modules/.bin/buf lint
	cd proto && node_modules/.bin/buf breaking --against released.binpb
	git diff --exit-code -- proto/src

check: lint types contracts proto-check ## Everything CI checks besides the tests

bench: bench-registry bench-transfer bench-idle ## Speed and memory beside peers, in one run each

bench-registry: $(VENV)/.installed-test ## Registry requests per second and CPU; MLFLOW=its-environment/bin/python adds the peer
	$(BIN)/python bench/registry.py $(if $(MLFLOW),--mlflow '$(MLFLOW)')

bench-transfer: $(VENV)/.installed-test ## Push and pull of 200 MB beside plain clients
	$(BIN)/python bench/transfer.py

bench-optimize: $(VENV)/.installed-test ## The selector on MobileNetV1, first and again; needs ../shared/data
	$(BIN)/python bench/optimize.py

bench-compression: $(VENV)/.installed-test ## INT8 accuracy, latency, the costs of calibrating and of finding a cause, beside ONNX Runtime; NNCF=its-environment/bin/python adds NNCF; PROFILE=x86 for CPUs without VNNI; needs ../shared/data, or CHECKPOINT=… DATASET=…
	$(BIN)/python services/compiler/bench/compression.py $(if $(NNCF),--nncf '$(NNCF)') $(if $(PROFILE),--profile '$(PROFILE)') \
	    $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') $(if $(DATASET),--dataset '$(DATASET)') \
	    $(if $(EVALUATION),--evaluation-dataset '$(EVALUATION)') $(if $(INPUT_SPEC),--input-spec '$(INPUT_SPEC)')
ifndef CHECKPOINT
	$(BIN)/python services/compiler/bench/calibration.py yolov5n
	$(BIN)/python services/compiler/bench/cause.py
endif

bench-idle: $(VENV)/.installed ## Start time and memory of all services, idle
	$(BIN)/python bench/idle.py

docs: $(VENV)/.installed reference ## Run every command of the guides and write down what it printed
	$(BIN)/python docs/run.py docs/tour.md docs/compression.md
	$(BIN)/python docs/run.py --link '$(EXAMPLES)' docs/int8.md

reference: $(VENV)/.installed ## Write docs/recipes.md from the schema of recipes
	$(BIN)/python docs/reference.py

clean: ## Remove environments and the data of `make run`
	rm -rf $(VENV) $(VENV)-proto proto/node_modules $(DATA)
