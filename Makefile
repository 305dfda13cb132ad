# `make demo` is `python3 make.py demo`; `make` lists the targets. GPU=cu126 is --gpu cu126, PORT=8041 --port 8041.
PYTHON ?= python3
TARGETS := demo test test-slow fuzz mutants golden lint docs serve board clean

.PHONY: help $(TARGETS)
help:
	@$(PYTHON) make.py

$(TARGETS):
	@$(PYTHON) make.py $@ $(if $(GPU),--gpu $(GPU)) $(if $(PORT),--port $(PORT))
