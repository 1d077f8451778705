# make run    build .venv once and run the default experiment          make test   all tests but the exhaustive ones
# make check  what every commit must pass, under two minutes           make bench  speed, as ratios against references
# make cost   what methods cost at inference and in training           make gpu-evidence  all that needs a GPU, in slices
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
EXPERIMENT ?= config/smoke.yaml
CORES ?= all
PYTEST := $(BIN)/python -m pytest

.PHONY: run test test-all check bench cost gpu-evidence verify-reference audit soak clean

run: .venv/ready
	@$(BIN)/python -m harness.unlock
	$(BIN)/snakemake --cores $(CORES) --config 'experiment=$(EXPERIMENT)'

test: .venv/ready
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist worksteal -m "not exhaustive" tests

test-all: .venv/ready
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist worksteal tests

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakemake --lint
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist worksteal -q -m "not slow and not exhaustive" tests

bench: .venv/ready
	mkdir -p .benchmarks
	$(PYTEST) tests/benchmarks -m "not exhaustive" --benchmark-enable --benchmark-columns=min,median,rounds \
		--benchmark-json=.benchmarks/bench.json -s
	$(BIN)/python -m harness.cost.benchmarks .benchmarks/bench.json

# Trains the shortest of the committed runs again (half an hour on a core) and compares; needs CAMVID_ROOT. Where some
# were trained on this very processor's model, or at least its name, one of those. ITERATIONS=50 trains only so many (a
# minute or two each), of all such runs, and compares the curves.
verify-reference: .venv/ready
	$(BIN)/python -m harness reproduce results/reference $(if $(ITERATIONS),--iterations $(ITERATIONS),--protocol whole)

# What needs a GPU, in slices of under nine minutes; again: what is left. DRY=1 lists it, SLICES=1 runs one slice,
# SCRATCH=1 trains HRNet-W48 without ImageNet weights, where there is no network to fetch them from.
gpu-evidence: .venv/ready
	$(BIN)/python -m harness gpu-evidence $(if $(DRY),--dry) $(if $(SLICES),--slices $(SLICES)) $(if $(SCRATCH),--from-scratch)

# What methods cost on this machine's processor; about a quarter of an hour on two idle cores (docs/performance.md).
LATENCY := $(BIN)/python -m harness latency --device cpu
OVERHEAD := $(BIN)/python -m harness overhead --device cpu --size 128x256 --rounds 8
cost: .venv/ready
	$(LATENCY) --model hrnet_tiny --model lite0_fpn --size 512x1024 --mode single_stream
	$(LATENCY) --model hrnet_w48 --size 128x256 --mode single_stream
	$(LATENCY) --model lite0_fpn --size 128x256 --mode offline --batch 8
	$(OVERHEAD) --model lite0_fpn --batch 4
	$(OVERHEAD) --model hrnet_w18_small --batch 2

# Known faults of the locked packages; says "not run" where no network answers.
audit: .venv/ready
	$(BIN)/python -m harness.audit requirements/lock.txt

# Thirty tiny runs while random jobs are killed; fills docs/reliability.md. Ten minutes.
soak: .venv/ready
	OMP_NUM_THREADS=1 $(PYTEST) -q -s tests/reliability/soak.py

# The lock is complete, so pip resolves nothing: no second torch and no second OpenCV can slip in.
.venv/ready: requirements/lock.txt
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."'
	@echo "Installing the pinned packages into .venv (a minute or two, about 2 GB) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-deps -r requirements/lock.txt
	touch $@

clean:
	rm -rf results/runs results/logs results/data results/cache results/reproduced .snakemake
	find results/reports -mindepth 1 -maxdepth 1 ! -name cost -exec rm -rf {} +
