# `make` lists the targets. Each first installs the pinned requirements into .venv if it is missing or they changed.
PYTHON ?= python3
# GPU=cu126 (or cu118, cu129 ...) installs Paddle's GPU build for that CUDA instead of the CPU one.
GPU ?=
PORT ?= 8040
BIN := .venv/bin

.PHONY: help demo test test-slow fuzz mutants golden lint docs serve board clean
help:
	@echo "make demo       check, train, evaluate, predict and export on the images in signs/"
	@echo "make test       the tests, and which were skipped and why"
	@echo "make test-slow  the tests that take minutes"
	@echo "make fuzz       odd settings, files and lists: 10,000 of each, and 200 command lines"
	@echo "make mutants    one-line faults: which of them the tests notice (an hour)"
	@echo "make golden     keeps today's texts, helps and pages as those that the tests expect"
	@echo "make lint       style and types: ruff, mypy"
	@echo "make docs       docs/settings.md from config.yaml, the table of docs/tests.md"
	@echo "make serve      the newest exported model and its web page on http://127.0.0.1:8000"
	@echo "make board      VisualDL over output/ on http://127.0.0.1:$(PORT)"
	@echo "make clean      deletes output/, infer/ and log/"
	@echo "make demo GPU=cu126    the same with Paddle's GPU build for CUDA 12.6"

demo: .venv/run-time
	$(BIN)/python annotate.py
	$(BIN)/python train.py overwrite=true
	$(BIN)/python evaluate.py
	$(BIN)/python export.py
	$(BIN)/python predict.py signs/test --model infer/signs-resnet50 --out output/predictions.csv --show output/predictions.png \
		> output/predictions.txt
	@head -n 3 output/predictions.txt
	@echo "all predictions: output/predictions.csv, as an image: output/predictions.png"
	@echo "report: output/signs-resnet50/report.html"

test: .venv/development
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/development
	$(BIN)/python -m pytest -m slow

fuzz: .venv/development
	FUZZ_EXAMPLES=10000 FUZZ_COMMANDS=200 FUZZ_IMAGES=200000 $(BIN)/python -m pytest tests/fuzz

mutants: .venv/development
	$(BIN)/python tests/mutation/mutants.py

golden: .venv/development
	GOLDEN=write $(BIN)/python -m pytest -m golden

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/run-time
	$(BIN)/python docs/settings.py
	$(BIN)/python docs/effects.py

serve: .venv/run-time
	$(BIN)/python serve.py

board: .venv/run-time
	$(BIN)/visualdl --logdir output --host 127.0.0.1 --port $(PORT) --language en --disable-telemetry

clean:
	rm -rf output infer log

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/run-time: requirements.txt | .venv/bin/python
ifdef GPU
	grep -v '^paddlepaddle==' requirements.txt > .venv/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		"$$(sed -n 's/^paddlepaddle==/paddlepaddle-gpu==/p' requirements.txt)" \
		-i https://www.paddlepaddle.org.cn/packages/stable/$(GPU)/
else
	@echo "installing the requirements into .venv (about 1 GB, a minute or two)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
endif
	@touch $@

.venv/development: requirements-dev.txt requirements-tracing.txt .venv/run-time
	sed '/^-r /d' requirements-dev.txt > .venv/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements-dev.txt -r requirements-tracing.txt
	@touch $@
