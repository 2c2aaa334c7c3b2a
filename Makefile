# Everything runs from a fresh clone: Python 3.11+, make and git are enough. `make` alone lists the targets.

NEWEST := 3.3
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
UV := $(VENV)/bin/uv
READY := $(VENV)/ready
BENCH := .venvs/bench

.DEFAULT_GOAL := help
.PHONY: help venv demo airflow airflow-check test lint format types unit test-matrix wheel-check bench bench-waiting constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## upload, wait, check and delete a real file, against a QuickSync on this machine
	@$(RUN) scripts/demo.py

airflow: $(READY) ## an Airflow to click in, with a QuickSync on this machine and the example DAGs; Ctrl-C stops it
	@$(RUN) scripts/standalone.py

airflow-check: $(READY) ## start what `make airflow` starts, trigger an example, see it succeed, and stop it
	@$(RUN) scripts/standalone.py --check

test: lint types unit ## lint, types and tests, on the newest Airflow

lint: $(READY) ## ruff: format and rules
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

format: $(READY) ## let ruff format, and mend what it can
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

types: $(READY) ## mypy
	@$(VENV)/bin/mypy

unit: $(READY) ## pytest with coverage; ARGS="tests/client -k name" for less
	@$(RUN) -m pytest -n 4 --dist loadfile --cov --cov-report=term $(ARGS)

test-matrix: $(READY) ## the tests on each supported Airflow and Python; ROWS="3.0 3.3-py3.13" for some
	@$(RUN) scripts/matrix.py $(ROWS)

wheel-check: $(READY) ## build the wheel, and use it in an empty environment
	@scripts/wheel_check.sh constraints/airflow-$(NEWEST).txt

bench: $(UV) ## this client, boto3, S3Hook and curl in turns; ARGS="--quick" or "--only upload" for less
	@test -x $(BENCH)/bin/python || $(UV) venv --quiet --python $(RUN) $(BENCH)
	@$(UV) pip install --quiet --python $(BENCH)/bin/python --constraints constraints/airflow-$(NEWEST).txt \
		-r benchmarks/requirements.txt --editable .
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

bench-waiting: $(UV) ## thousands of deferred tasks, beside the S3 provider's trigger; ARGS="--quick" for less
	@test -x $(BENCH)/bin/python || $(UV) venv --quiet --python $(RUN) $(BENCH)
	@$(UV) pip install --quiet --python $(BENCH)/bin/python --constraints constraints/airflow-$(NEWEST).txt \
		-r benchmarks/requirements.txt "apache-airflow-providers-amazon[aiobotocore]" --editable ".[local,realtime]"
	@$(BENCH)/bin/python benchmarks/waiting.py $(ARGS)

constraints: $(UV) ## resolve constraints/ anew
	@scripts/constraints.sh

venv: $(READY) ## set up .venv: the newest Airflow, this package (editable), every extra, the tools

$(READY): pyproject.toml constraints/airflow-$(NEWEST).txt | $(UV)
	@echo "Setting up $(VENV): $$($(RUN) --version), Airflow $(NEWEST)"
	@$(UV) pip install --quiet --python $(RUN) --constraints constraints/airflow-$(NEWEST).txt \
		-r pyproject.toml --all-extras --group dev --editable .
	@touch $@

$(UV):
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 here; name one: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check uv

clean: ## remove the environments and all that the commands made
	@rm -rf $(VENV) .venvs .airflow build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
