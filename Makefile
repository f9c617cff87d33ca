# make demo and make test work on a fresh machine: both begin with the environment in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-arm64 test-vm docs fuzz lint locks build clean

install: .venv/installed

# HNSWLIB_NO_NATIVE: without it hnswlib is compiled for the very processor it is built on.
.venv/installed: setup.py constraints.txt edge_vad/kernels.c
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	HNSWLIB_NO_NATIVE=1 $(BIN)/pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

demo: install
	$(BIN)/edge-vad demo

# Files are spread over that many processes.
JOBS ?= 2

test: install
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

# Overlays in emulated arm64 systems, and picamera2 (docs/testing.md). Needs: root, apt-get install mmdebstrap, Linux 6.7.
test-arm64: install
	$(BIN)/python -m pytest -s -rs tests/arm64/overlays.py tests/arm64/picamera2_units.py

# A unit in a virtual machine: offline installation, unplugged camera, watchdog, three power cuts (docs/testing.md). As root, half
# an hour and more; needs: apt-get install qemu-system-x86 qemu-utils mmdebstrap e2fsprogs
test-vm: install
	$(BIN)/python -m pytest -s -x tests/vm/leg.py

# The documentation as a site in site/, without a network. The variable silences the theme's advertisement of its successor.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The fuzzers of the tests, each for that many seconds, from that seed on; they print what came of how many cases.
FUZZ_SECONDS ?= 600
FUZZ_FIRST ?= 0

fuzz: install
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_FIRST=$(FUZZ_FIRST) $(BIN)/python -m pytest -s \
		tests/test_graph.py::test_damaged_graphs_are_refused_or_find_what_exact_search_finds \
		tests/test_fuzz.py::test_mutated_bundles_are_refused_by_name_or_score_as_before

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy edge_vad converters

# The wheels of every target of edge-vad provision, resolved anew: converters/locks.
locks: install
	$(BIN)/pip install --quiet uv
	$(BIN)/python -m edge_vad.converters.lock

# The same tree gives the same bytes: one date (of the last commit, 1980 outside git), one umask, no list of an earlier sdist.
# The wheel is for every machine, without compiled inner loops; pip compiles them from the sdist.
build: export EDGE_VAD_KERNELS = off
build: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
build: install
	rm -rf build dist *.egg-info/SOURCES.txt
	umask 022 && $(BIN)/python -m build --no-isolation

clean:
	rm -rf .venv build dist site demo_out *.egg-info .pytest_cache .mypy_cache .ruff_cache
