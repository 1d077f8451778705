SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
# The first Python here that the locked packages support; make PYTHON=python3.12 names another.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(or $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(SUPPORTED)' 2> /dev/null && echo $$name && break; done),python3)
BIN := .venv/bin
EXPERIMENT ?= config/quick.yaml
CORES ?= all
PYTEST := $(BIN)/python -m pytest

.PHONY: help site run test test-all check bench bench-gpu cost verify-reference soak clean

# The first target, which plain `make` runs. Times are of two idle cores, after the packages are installed.
help:
	@echo 'make run               a first result: three methods on rendered street scenes   2 min'
	@echo '  EXPERIMENT=FILE        another experiment: config/smoke.yaml has ten arms           7 min'
	@echo '  SET="KEY=VALUE ..."    a trial with other settings, kept apart from the real runs'
	@echo '  SHARE=N                so many runs on a GPU at a time; default: what was measured to pay'
	@echo '  CORES=N TORCH=cpu PYTHON=python3.12    fewer cores; torch without CUDA; another Python'
	@echo 'make test              all tests but the exhaustive ones                          7 min'
	@echo 'make check             what every commit must pass                               80 s'
	@echo 'make bench             speed, as ratios against references                        6 min'
	@echo 'make bench-gpu         speed on a GPU against its goals; LIMIT=2 for 2 minutes    6 min'
	@echo 'make site              a static site of the committed records, in site/            2 min'
	@echo 'make cost              what methods cost on this processor                       18 min'
	@echo 'make verify-reference  trains a committed run again and compares; CAMVID_ROOT    30 min'
	@echo 'make soak              thirty runs while random jobs are killed                  10 min'
	@echo 'make clean             removes runs, reports and caches, not what is committed'
	@echo 'Packages are installed into .venv on the first call, 1 to 10 min by the network.'

run: .venv/ready
	@$(BIN)/python -m harness.runs.unlock
	@$(BIN)/snakemake --cores $(CORES) --config 'experiment=$(EXPERIMENT)' $(if $(SET),'set=$(SET)') $(if $(SHARE),share=$(SHARE))

test: .venv/ready
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist worksteal -m "not exhaustive" tests

test-all: .venv/ready
	ALL_EXAMPLES=1 OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist worksteal tests

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakemake --lint
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist worksteal -q -m "not slow and not exhaustive" tests

bench: .venv/ready
	mkdir -p .benchmarks
	$(PYTEST) benchmarks/cpu -m "not exhaustive" --benchmark-enable --benchmark-columns=min,median,rounds \
		--benchmark-json=.benchmarks/bench.json -s
	$(BIN)/python -m benchmarks.cpu_table .benchmarks/bench.json

# How fast the project is on a GPU, beside its goals; again: what is missing. LIMIT=2 takes two minutes at most, FRESH=1
# measures all anew, DRY=1 tries every piece at a tiny size on the processor.
bench-gpu: .venv/ready
	$(BIN)/python -m benchmarks.gpu --minutes $(or $(LIMIT),6) $(if $(FRESH),--fresh) $(if $(DRY),--device cpu)

# Trains the shortest of the committed runs again (half an hour on a core) and compares; needs CAMVID_ROOT. Where some
# were trained on this very processor's model, or at least its name, one of those. ITERATIONS=50 trains only so many (a
# minute or two each), of all such runs, and compares the curves.
verify-reference: .venv/ready
	$(BIN)/python -m harness reproduce results/reference $(if $(ITERATIONS),--iterations $(ITERATIONS),--protocol whole)

# Pages of all committed records for any static host.
site: .venv/ready
	$(BIN)/python -m harness site

# What methods cost on this machine's processor (docs/performance.md).
LATENCY := $(BIN)/python -m harness latency --device cpu
OVERHEAD := $(BIN)/python -m harness overhead --device cpu --size 128x256 --rounds 8
cost: .venv/ready
	$(LATENCY) --model hrnet_tiny --model lite0_fpn --size 512x1024 --mode single_stream
	$(LATENCY) --model hrnet_w48 --size 128x256 --mode single_stream
	$(LATENCY) --model lite0_fpn --size 128x256 --mode offline --batch 8
	$(OVERHEAD) --model lite0_fpn --batch 4
	$(OVERHEAD) --model hrnet_w18_small --batch 2

# Thirty tiny runs while random jobs are killed; fills docs/reliability.md. Ten minutes.
soak: .venv/ready
	OMP_NUM_THREADS=1 $(PYTEST) -q -s tests/reliability/soak.py

.venv/ready: requirements/install.py requirements/lock.txt requirements/torch.txt requirements/cuda.txt
	@$(PYTHON) requirements/install.py .venv $(if $(TORCH),--torch $(TORCH))
	@touch $@

clean:
	rm -rf results/runs results/logs results/data results/cache results/reproduced .snakemake
	find results/reports -mindepth 1 -maxdepth 1 ! -name cost -exec rm -rf {} +
