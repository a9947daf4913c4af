# These commands work on a fresh machine; they create .venv once and reuse it.
#   make demo    turns a drawn portrait and speech into a video
#   make test    lints and runs the whole suite, as CI does
#   make quick   the same without the tests of the avatar's training recipe, for daily work
#   make gpu-bundle REFERENCE=path    lays out in out/gpu-bundle what a machine with a GPU needs to run benchmarks.gpu
# For a different PyTorch than the one below (a GPU build, for example): make demo TORCH=torch

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
# two processes, one thread each: threads that wait for each other cost small models more than they gain
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses 2 --dist loadgroup

.PHONY: demo test quick lint format fuzz gpu-bundle

$(VENV)/installed: pyproject.toml requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c "import torch" 2>/dev/null || $(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet --editable ".[standalone,test]"
	touch $@

demo: $(VENV)/installed
	mkdir -p out
	$(PY) -m imtalker.drawn out
	$(PY) -m imtalker talk --source out/portrait.png --audio imtalker/avatar/speech.wav --crop none --models avatar --cfg 1 -o out/demo.mp4

lint: $(VENV)/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/installed
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

test: lint
	$(PYTEST) tests

quick: lint
	$(PYTEST) tests -m "not recipe"

# takes longer than the suite: corrupted files for every reader; odd values for every link; renders that are killed, stopped or run out of disk
fuzz: $(VENV)/installed
	$(PY) -m pytest -s --override-ini python_files='fuzz_*.py' tests/fuzz
	DOOR_TRIES=2000 $(PY) -m pytest tests/nodes/test_hardened.py

# REFERENCE, a checkout of the published code, is optional: without it there are no ratios
gpu-bundle: $(VENV)/installed
	$(PY) -m benchmarks.bundle out/gpu-bundle $(if $(REFERENCE),--reference "$(REFERENCE)")
