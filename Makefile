# `make demo` and `make test` do all the set-up on a fresh Debian machine with Python 3.11 and pip.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test lint types check phantom bench guard parity storm syscalls powercut audit clean

demo: $(READY)            ## run the main job on drawn images, in ./demo-run
	$(BIN)/xray-watcher demo $(ARGS)

test: $(READY)            ## the whole test suite
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

phantom: $(READY)         ## train the phantom network anew and write its report; about 20 minutes
	$(BIN)/python training/train_phantom.py $(ARGS)

bench: $(READY)           ## measure everything; writes docs/performance.md; let nothing else run
	$(BIN)/python benchmarks/bench.py $(ARGS)

guard: $(READY)           ## the forward pass beside onnxruntime's, in half a minute
	$(BIN)/python benchmarks/guard.py

# pip makes the environment complete before the marker is touched, so a broken set-up is repeated.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "xray-watcher needs Python 3.11 or newer; this is $$($(PYTHON) --version). Say which: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh .ci/apt-install python3-venv
	@echo "Setting up $(VENV): a few minutes, once (PyTorch is large)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $(READY)

audit: $(READY)           ## known vulnerabilities of the pinned versions; needs the network
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

storm: $(READY)           ## 2,000 kills at random moments while files arrive; about an hour
	$(BIN)/python tests/storms/kill_storm.py $(ARGS)

syscalls: $(READY)        ## something goes wrong at every system call, once each; needs strace
	$(BIN)/python tests/storms/syscall_storm.py $(ARGS)

powercut: $(READY)        ## 100 power cuts on ext4 and on XFS each; needs root and loop devices
	$(BIN)/python tests/storms/power_cut.py $(ARGS)

parity: $(READY)          ## our scores beside TorchXRayVision's own; writes docs/parity.md
	$(BIN)/python benchmarks/parity.py

clean:
	rm -rf $(VENV) demo-run bench-run .pytest_cache .mypy_cache .ruff_cache .hypothesis
