# Everything runs from a fresh clone: Python 3.11+, make and git are enough. `make` alone lists the targets.

NEWEST := 3.3
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/ready
UV := $(VENV)/bin/uv

.DEFAULT_GOAL := help
.PHONY: help venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY) ## set up .venv: the newest Airflow, this package (editable), every extra, the developers' tools

$(READY): pyproject.toml constraints/airflow-$(NEWEST).txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found; name one with PYTHON=..."; exit 1; }
	@echo "Setting up $(VENV) ($(PYTHON), Airflow $(NEWEST))"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV) pip install --quiet --python $(VENV)/bin/python --constraints constraints/airflow-$(NEWEST).txt \
		-r pyproject.toml --all-extras --group dev --editable .
	@touch $@
