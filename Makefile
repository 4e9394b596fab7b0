# make train | make test | make lint: each makes .venv, installs, and runs; a second call is quick.
PYTHON ?= python3
VENV ?= .venv
CUDA ?=
BIN = $(VENV)/bin
CONSTRAINTS = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info[:2] == (3, 11) else "")')
EXTRAS = dev$(if $(CUDA),$(comma)cuda$(CUDA))
comma := ,

.PHONY: train test test-slow lint format clean

train: $(VENV)/.installed
	$(BIN)/python scripts/train.py $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(abspath $(BIN)/python)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and pinned: a looser requirement would fetch gigabytes of CUDA packages
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -e ".[$(EXTRAS)]" $(CONSTRAINTS)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
