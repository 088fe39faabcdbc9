# `make demo` and `make test` do all the set-up on a fresh Debian machine with Python 3.11 and pip.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# The tests start the program a thousand times; compiling it anew costs a third of each start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help demo test lint types check phantom bench bench-http guard parity storm progress reloadstorm uploadstorm shares sigterm \
  syscalls powercut fulldisk damaged spreadsheet lives fuzz fuzz-http audit lock sbom wheel \
  release manual install-test container-test clean

help:                     ## list the targets (what `make` alone does)
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

demo: $(READY)            ## run the main job on drawn images, in ./demo-run
	$(BIN)/xray-watcher demo $(ARGS)

# Three modules at a time, also on two cores: many tests wait for a process, a share, a browser.
test: $(READY)            ## the whole test suite
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: $(READY)            ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)           ## mypy, strict
	$(BIN)/mypy

check: lint types test    ## all three

phantom: $(READY)         ## train the phantom network anew and write its report; about 20 minutes
	$(BIN)/python training/train_phantom.py $(ARGS)

bench: $(READY)           ## measure everything; writes docs/evidence/performance.md; let nothing else run
	$(BIN)/python benchmarks/bench.py $(ARGS)

guard: $(READY)           ## the forward pass beside onnxruntime's, in half a minute
	$(BIN)/python benchmarks/guard.py

bench-http: $(READY)      ## the HTTP API beside the folder, latency, memory; ARGS=--long: 10,000 files
	$(BIN)/python benchmarks/http_api.py $(ARGS)

# pip makes the environment complete before the marker is touched, so a broken set-up is repeated.
# A second make waits for the first, and then finds everything there. Byte code comes by use: most
# of PyTorch is never imported, and compiling it all is 70 of 175 s.
ifndef ALONE
$(READY): pyproject.toml constraints.txt
	@flock Makefile $(MAKE) --no-print-directory --silent ALONE=1 $(READY)
else
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "xray-watcher needs Python 3.11 or newer; this is $$($(PYTHON) --version). Say which: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh .ci/apt-install python3-venv
	@echo "Setting up $(VENV): a few minutes, once (PyTorch is large)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $(READY)
endif

audit:                    ## known vulnerabilities of the pinned versions; needs the network
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict $(ARGS)
	.venv-audit/bin/pip-audit $(addprefix --requirement ,$(wildcard deploy/locks/*.txt)) --disable-pip --strict $(ARGS)

lock:                     ## deploy/locks: versions and hashes for servers; ARGS=--upgrade renews; network
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	sh .ci/make-locks $(ARGS)

sbom: $(READY)            ## dist/xray-watcher.cdx.json: a CycloneDX bill of what deploy/locks names
	$(BIN)/python deploy/sbom.py dist/xray-watcher.cdx.json

# From the commit alone, by the backend that is locked, with the commit's time: the same bytes each time.
wheel:                    ## dist/*.whl of the last commit; needs the network
	rm -rf build && mkdir -p build/source dist
	git archive HEAD | tar -x -C build/source
	$(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r build/source/deploy/locks/build.txt
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) build/venv/bin/python -m pip wheel --quiet --disable-pip-version-check \
	  --no-deps --no-index --no-build-isolation --wheel-dir dist build/source

release: $(READY)         ## dist: wheel, bill of materials and SHA256SUMS of the tag that is checked out
	@test -z "$$(git status --porcelain)" || { git status --short; echo "Commit these or take them away, and run this again."; exit 1; }
	@version=v$$($(BIN)/python -c 'import xray_watcher; print(xray_watcher.__version__)'); \
	git tag --points-at HEAD | grep -Fqx "$$version" || { echo "This commit has no tag $$version: see CONTRIBUTING.md, Release."; exit 1; }
	rm -rf dist
	$(MAKE) --no-print-directory wheel sbom
	cd dist && sha256sum * >SHA256SUMS && cat SHA256SUMS

storm: $(READY)           ## 2,000 kills at random moments while files arrive; about half an hour
	$(BIN)/python tests/storms/kill_storm.py $(ARGS)

progress: $(READY)        ## one file fails at each call, in each way, while others go on; under an hour
	command -v cc >/dev/null || sh .ci/test-tools
	$(BIN)/python tests/storms/progress_storm.py $(ARGS)

sigterm: $(READY)         ## 200 requests to stop at random moments
	$(BIN)/python tests/storms/kill_storm.py --politely --kills 200 $(ARGS)

reloadstorm: $(READY)     ## a reload every second for a minute while images arrive
	$(BIN)/python tests/storms/reload_storm.py $(ARGS)

uploadstorm: $(READY)     ## 300 kills of the daemon or the web while clients upload; about half an hour
	$(BIN)/python tests/storms/upload_storm.py $(ARGS)

syscalls: $(READY)        ## something goes wrong at every system call, once each; needs strace
	$(BIN)/python tests/storms/syscall_storm.py $(ARGS)

powercut: $(READY)        ## 100 power cuts on ext4 and on XFS each; needs root and loop devices
	$(BIN)/python tests/storms/power_cut.py $(ARGS)

fulldisk: $(READY)        ## a disk that fills and empties 20 times, on tmpfs, ext4 and XFS; needs root
	$(BIN)/python tests/storms/filling_disk.py $(ARGS)

damaged: $(READY)         ## 23,000 damaged JPEGs made from films; needs libjpeg-turbo-progs; an hour
	command -v djpeg >/dev/null || sh .ci/apt-install libjpeg-turbo-progs
	$(BIN)/python tests/storms/damaged_pictures.py $(ARGS)

spreadsheet: $(READY)     ## open the CSV in LibreOffice: no formula runs; installs libreoffice-calc
	command -v soffice >/dev/null || sh .ci/apt-install libreoffice-calc
	$(BIN)/python -m pytest tests/test_spreadsheet.py $(ARGS)

lives: $(READY)           ## 2,000 random lives of the daemon: arrivals, kills, edits, clocks; about 15 minutes
	XRAY_LIVES=2000 $(BIN)/python -m pytest tests/test_stateful.py $(ARGS)

fuzz: $(READY)            ## 15 minutes of made-up files for the decoder; needs Linux on x86-64
	$(BIN)/python tests/fuzz/fuzz_decode.py $(ARGS)

fuzz-http: $(READY)       ## 10 minutes of made-up requests for the web
	$(BIN)/python tests/fuzz/fuzz_http.py $(ARGS)

manual: $(READY)          ## write the manual pages and docs/settings.md anew from commands and settings
	$(BIN)/python -m xray_watcher.cli.manual deploy/man
	$(BIN)/python deploy/settings_page.py >docs/settings.md

install-test: $(READY)    ## install on fresh Debians 12 and 13 with a systemd of their own; root, network
	command -v debootstrap >/dev/null || sh .ci/apt-install debootstrap
	$(BIN)/python -m pytest tests/deploy/installing/on_debian.py $(ARGS)

container-test: $(READY)  ## build the image with buildah and run it with podman; root, network
	for program in debootstrap buildah podman runc; do \
	  command -v $$program >/dev/null || sh .ci/apt-install $$program; done
	$(BIN)/python -m pytest tests/deploy/installing/on_podman.py $(ARGS)

shares: $(READY)          ## 200 uploads of each manner to a real smbd; needs root and samba; an hour
	sh .ci/test-tools
	$(BIN)/python tests/shares/uploads.py $(ARGS)

parity: $(READY)          ## our scores beside TorchXRayVision's own; writes docs/evidence/parity.md
	$(BIN)/python benchmarks/parity.py

clean:                    ## remove what the targets made, .venv too
	rm -rf $(VENV) .venv-audit .venv-lock build dist fuzz-found demo-run bench-run .pytest_cache .mypy_cache .ruff_cache .hypothesis
