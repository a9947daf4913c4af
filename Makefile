# Two commands do everything on a fresh machine; both make .venv once and reuse it.
#   make demo   runs the main job, a portrait and a speech sound to a video
#   make test   lints, and runs the whole suite
# For a PyTorch other than the one below (a GPU build, say): make demo TORCH=torch

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test lint format fuzz

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
	$(PY) -m pytest tests

# longer than the suite: spoiled files for every reader, and renders that are killed, stopped and out of disk
fuzz: $(VENV)/installed
	$(PY) -m pytest -s --override-ini python_files='fuzz_*.py' tests/fuzz
