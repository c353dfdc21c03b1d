# Every command sets itself up: the first one makes .venv from requirements.txt.
# PYTHON names the interpreter to make it with; ARGS is handed on, as in: make test ARGS="-k pruning".

PYTHON ?= python3
# pyenv's python3.9 on the path answers only where it was activated.
PYTHON39 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.9.*/bin/python) python3.9)
ARGS ?=
RUN := .venv/bin/python -m
INSTALLED := .venv/.installed
DASHBOARD := .venv/.dashboard
LEGACY := .venv-ncs/.installed

.PHONY: help install quickstart test test-cluster lint types check docs bench gpu legacy-runtime dashboard

help: ## list these commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

install: $(INSTALLED) ## make .venv, or bring it up to date with requirements.txt

quickstart: $(INSTALLED) ## a small search on embedded images, in a few minutes
	$(RUN) edge_tune.run experiments/quickstart.py $(ARGS)

test: $(INSTALLED) ## the tests, but for those that need more than Python (CONTRIBUTING.md), three files at a time
	$(RUN) pytest --numprocesses=3 --dist=loadfile $(ARGS)

test-cluster: $(INSTALLED) ## `ray up cluster.yaml` on hosts made of namespaces; needs root, rsync and sshd
	$(RUN) pytest -m cluster $(ARGS)

lint: $(INSTALLED) ## style and format
	$(RUN) ruff check
	$(RUN) ruff format --check

types: $(INSTALLED) ## mypy, strict
	$(RUN) mypy

check: lint types test ## lint, types and test: what a change must pass

docs: $(INSTALLED) ## the README, the guides and a reference of every setting as a site, site/index.html
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

bench: $(INSTALLED) ## seconds that each stage of a trial takes
	$(RUN) benchmarks.trial_stages $(ARGS)

gpu: $(INSTALLED) ## all that needs a GPU: its figures, a small study, its tests; about 10 minutes
	$(RUN) benchmarks.gpu $(ARGS)
	$(RUN) edge_tune.run experiments/quickstart.py --gpus-per-trial 0.5
	$(RUN) pytest -m cuda

legacy-runtime: $(LEGACY) ## make .venv-ncs, whose OpenVINO 2021.4.2 has the Neural Compute Stick's plugin

dashboard: $(DASHBOARD) ## Ray's web page, for the head of a cluster (docs/cluster.md)

# A first install that was interrupted is begun again from nothing: .venv/.unfinished tells. A whole .venv
# that is older than requirements.txt is brought up to date. Remove .venv to change the interpreter.
$(INSTALLED): requirements.txt
	@if [ ! -e .venv/bin/python ] || [ -e .venv/.unfinished ]; then \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
			echo "EdgeTune needs Python 3.10 or newer, but PYTHON=$(PYTHON) answers: $$($(PYTHON) --version 2>&1 | head -n 1). Name another one, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "EdgeTune needs Python's venv module, but PYTHON=$(PYTHON) has none. Install it (Debian, Ubuntu: apt-get install python3-venv) or name another one, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
		echo "Making .venv from requirements.txt: once, a few minutes, 7 GB on Linux."; \
		rm -rf .venv && mkdir .venv && touch .venv/.unfinished && $(PYTHON) -m venv .venv; \
	fi
	$(RUN) pip install --disable-pip-version-check -r requirements.txt
	@rm -f .venv/.unfinished
	@touch $@

$(DASHBOARD): $(INSTALLED)
	$(RUN) pip install --quiet --disable-pip-version-check -r requirements.txt 'ray[default]'
	@touch $@

$(LEGACY): requirements-ncs.txt
	@$(PYTHON39) -c 'import sys; sys.exit(not (3, 6) <= sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "OpenVINO 2021.4.2 needs Python 3.6 to 3.9, but PYTHON39=$(PYTHON39) answers: $$($(PYTHON39) --version 2>&1 | head -n 1). Name another one, as in: make $(MAKECMDGOALS) PYTHON39=python3.8" >&2; exit 1; }
	@echo "Making .venv-ncs from requirements-ncs.txt: once, a few seconds, 180 MB."
	@rm -rf .venv-ncs && $(PYTHON39) -m venv .venv-ncs
	.venv-ncs/bin/python -m pip install --disable-pip-version-check -r requirements-ncs.txt
	@touch $@
