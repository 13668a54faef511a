# The one front: everyone has make. Recipes are one-liners that call a module or a script.
#
#   make setup   virtual environment with the locked dependencies (idempotent)
#   make demo    the main job on this machine: a relay, a home, a laptop, paired and serving
#   make test    everything that is tested; as root with the network-namespace lab
#   make test-old  the wire and the main job on the oldest cryptography
#   make interop the matrix with Go, JavaScript and stock py-libp2p (those of Go and Node that are here)
#   make fuzz    every decoder against hostile bytes (N=1000000, SEED=, TARGET=)
#   make check   lint, types, house
#   make docs    the reference pages, from the code that they describe
#   make bench   every goal of speed and size, beside what others reach (ARGS="--quick"; as root in network namespaces)
#   make profile where the time goes while bytes go through, line by line
#   make clean   removes all that these made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MAKE_DIR := .make
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --cache-dir $(MAKE_DIR)/pip install --use-pep517 --no-deps --require-hashes

.PHONY: setup setup-dev demo test test-old interop fuzz check docs bench profile clean
.DEFAULT_GOAL := demo

setup: $(MAKE_DIR)/run
	@$(BIN)/python packaging/stamp.py
setup-dev: $(MAKE_DIR)/dev setup

$(MAKE_DIR)/run: requirements-build.lock requirements-run.lock pyproject.toml
	@sh packaging/need.sh run $(PYTHON)
	@mkdir -p $(MAKE_DIR)
	@test -x $(BIN)/python || { echo "setup: making the virtual environment"; $(PYTHON) -m venv $(VENV); }
	@echo "setup: installing the locked dependencies"
	@$(PIP) -r requirements-build.lock
	@$(PIP) --no-build-isolation -r requirements-run.lock
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --use-pep517 --no-deps --no-build-isolation \
	    --config-settings editable_mode=compat --editable .
	@touch $@

$(MAKE_DIR)/dev: $(MAKE_DIR)/run requirements-dev.lock
	@sh packaging/need.sh dev $(PYTHON)
	@echo "setup: installing the locked tools of tests and checks (a minute or two)"
	@$(PIP) --no-build-isolation -r requirements-dev.lock
	@rm -rf $(VENV)/lib/python3*/site-packages/trio-stubs # of trio-typing, long outdated: they hide trio's own types
	@touch $@

demo: setup
	@$(BIN)/python tests/demo.py

test: setup-dev
	@$(BIN)/python tests/run.py

# the same wire and the same main job on the oldest cryptography that we promise
test-old: setup-dev
	@rm -rf $(MAKE_DIR)/old
	@$(PIP) --target $(MAKE_DIR)/old -r requirements-old.lock
	@PYTHONPATH=$(MAKE_DIR)/old $(BIN)/python tests/run.py old

interop: setup-dev
	@$(BIN)/python tests/interop/run.py $(ARGS)

fuzz: setup-dev
	@$(BIN)/python -m tests.fuzz --inputs $(or $(N),100000) $(if $(SEED),--seed $(SEED)) $(foreach t,$(TARGET),--target $(t))

check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/house

docs: setup-dev
	@$(BIN)/python docs/make.py

bench: setup-dev
	@$(BIN)/python -m bench $(ARGS)

profile: setup-dev
	@$(BIN)/python -m bench.profile $(ARGS)

clean:
	@rm -rf $(VENV) $(MAKE_DIR) build dist *.egg-info .coverage .coverage.* .hypothesis .pytest_cache .mypy_cache \
	    .ruff_cache .import_linter_cache bench/results peerupd/model/stamp.py
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
