# `make install` needs Python >= 3.11 with pip and venv, nothing else.
#   make install TORCH="torch==2.6.0"   another torch than the newest
#   make install PYTHON=python3.12      another Python (only where .venv does not exist yet)

PYTHON ?= python3
TORCH ?=

BIN := .venv/bin
# The stamp carries the torch that was asked for, so that asking for another one installs again.
STAMP := .venv/.installed$(shell printf %s '$(TORCH)' | tr -c 'A-Za-z0-9.' -)

.PHONY: install demo test check mutate format clean

install: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(STAMP): pyproject.toml | $(BIN)/python
	rm -f .venv/.installed*
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[all]' $(foreach each,$(TORCH),'$(each)')
	touch $@

demo: install
	$(BIN)/spikemorph demo

test: install
	scripts/check

check:
	scripts/check

mutate: install
	scripts/mutate

format: install
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
