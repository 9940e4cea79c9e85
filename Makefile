PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint style types pytest clean

$(VENV)/installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt -e ".[dev]"
	touch $@

# A whole small study on rendered images: gallery, search, export, evaluation, report.
demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

# Each process has one thread, and finds the libraries compiled by the first that imported them.
# mypy, a process of one core, runs beside the tests.
test: export OMP_NUM_THREADS = 1
test: export PYTHONDONTWRITEBYTECODE =
test: style
	$(MAKE) --no-print-directory --jobs=2 types pytest

lint: style types

style: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

pytest: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal

clean:
	rm -rf demo build dist *.egg-info
