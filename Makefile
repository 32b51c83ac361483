# Two commands do everything: `make demo` and `make test`. Both make the environment first, and do so only once.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint bench clean

demo: .venv/demo
	$(BIN)/python -m experiments.rbm --workdir=runs/demo

test: .venv/test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: .venv/test
	$(BIN)/python -m pytest -q -m slow

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/bench
	for file in benchmarks/*.py; do $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || exit 1; done

clean:
	rm -rf .venv runs

.venv/created:
	$(PYTHON) -m venv .venv
	touch $@

# A stamp per set of extras, renewed when the metadata or the pinned versions change.
.venv/demo: EXTRAS :=
.venv/test: EXTRAS := [test]
.venv/bench: EXTRAS := [test,bench]
.venv/demo .venv/test .venv/bench: .venv/created setup.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	touch $@
