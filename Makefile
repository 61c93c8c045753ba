# Everything starts here; `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help demo test lint soak bench peers install clean

help:
	@echo "make demo    install, run a sweep of 12 trainings on real data, compare them"
	@echo "make test    install, run all tests"
	@echo "make lint    ruff, mypy --strict"
	@echo "make soak    the long forms of the crash tests"
	@echo "make bench   the benchmarks"
	@echo "make peers   the same beside other trackers, each in an environment of its own"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Runstone needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (several minutes the first time: torch is large) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	@touch $@

demo: install
	@cd examples/digits && ../../$(BIN)/sweep run sweep.yaml --new

test: install
	$(BIN)/python -m pytest -n auto --dist loadfile --reruns 1

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: install
	RUNSTONE_SOAK=1 $(BIN)/python -m pytest -m soak --timeout 3600

bench: install
	$(BIN)/python -m benchmarks

peers: install
	$(BIN)/python -m benchmarks.peers --install
	$(BIN)/python -m benchmarks.peers

clean:
	rm -rf .venv .venv-mlflow benchmarks/peers/.venv-* .mypy_cache .ruff_cache .pytest_cache dist build
