# What a person types. `make train` and `make test` set everything up themselves.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# A Python of 3.11 or newer; name another with PYTHON=…
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; \
	done)
# Further Hydra overrides: make train ARGS="dataset=dancetrack optimizer.lr=1e-4"
ARGS ?=
# A run folder or a checkpoint for `make evaluate`, `compare` and `submit`; CHECKPOINT= says the same
CKPT ?=
CHECKPOINT ?= $(CKPT)
# A sweep's folder for `make report`
SWEEP ?=
# Test processes of `make test` and `make check`
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A path for Hydra within a word of the shell: a quote in it is closed, escaped and opened again.
quote = '$(subst ','\'',$(1))'

.PHONY: help
help:  ## Show this list
	@echo "Targets (further options: ARGS=\"key=value …\", PYTHON=python3.12):"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16 | sed 's/^/  /'

.PHONY: train
train: $(STAMP)  ## Train a tracker (synthetic dancers on the CPU unless ARGS say otherwise)
	$(BIN)/python -m scene_track.train $(ARGS)

.PHONY: train-ball
train-ball: $(STAMP)  ## Train a ball tracker (synthetic tennis on the CPU unless ARGS say otherwise)
	$(BIN)/python -m scene_track.train dataset=synthetic_tennis $(ARGS)

.PHONY: test
test: lint  ## Check the format, the style and the types, then run all tests
	$(BIN)/pytest -n $(JOBS) --dist loadscope

# The types are checked while the tests run: pyright keeps one core busy for about a minute.
.PHONY: check
check: $(STAMP)  ## As test, without the tests that are slow or start processes: about two minutes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@log=$$(mktemp); $(BIN)/pyright > "$$log" & pyright=$$!; \
	tests=0; $(BIN)/pytest -q -n $(JOBS) --dist loadscope -m "not process and not slow" || tests=$$?; \
	types=0; wait $$pyright || types=$$?; \
	cat "$$log"; rm -f "$$log"; \
	exit $$((tests | types))

.PHONY: setup
setup: $(STAMP)  ## Create .venv and install the pinned dependencies (the others do this themselves)

.PHONY: data
data: $(STAMP)  ## Write the synthetic dataset
	$(BIN)/python -m scene_track.synthetic.dance $(ARGS)

.PHONY: weights
weights: $(STAMP)  ## Say where the DINOv3 weights come from and go, and check those that are there
	$(BIN)/python -m scene_track.weights $(ARGS)

.PHONY: sweep
sweep: $(STAMP)  ## Search rates and losses in eight short trials, and report: make sweep ARGS="hydra.sweeper.n_trials=3"
	$(BIN)/python -m scene_track.train --multirun sweep=small $(ARGS)

.PHONY: report
report: $(STAMP)  ## Report on a sweep again, or while it runs: make report SWEEP=outputs/sweeps/…
	@test -n "$(SWEEP)" || { echo "say which: make report SWEEP=outputs/sweeps/NAME/TIME" >&2; exit 2; }
	$(BIN)/python -m scene_track.report sweep=$(call quote,$(SWEEP))

# Said before anything is installed.
.PHONY: .checkpoint
.checkpoint:
	@test -n "$(CHECKPOINT)" || { echo "say which: make $(MAKECMDGOALS) CKPT=outputs/runs/NAME/TIME" >&2; exit 2; }

.PHONY: evaluate
evaluate: .checkpoint $(STAMP)  ## Score a checkpoint on unseen sequences: make evaluate CKPT=outputs/runs/…
	$(BIN)/python -m scene_track.evaluate checkpoint=$(call quote,$(CHECKPOINT)) $(ARGS)

.PHONY: compare
compare: $(STAMP)  ## Train for three epochs and compare with ByteTrack, or compare a run: make compare CKPT=…
	@run=$(call quote,$(CHECKPOINT)); \
	if test -z "$$run"; then \
		run="outputs/runs/compare/$$(date +%Y-%m-%d_%H-%M-%S)"; \
		mkdir -p outputs/runs/compare; \
		mkdir "$$run"; \
		$(BIN)/python -m scene_track.train trainer.max_epochs=3 hydra.run.dir="$$run" $(ARGS); \
		$(BIN)/python -m scene_track.compare checkpoint="$$run"; \
	else \
		$(BIN)/python -m scene_track.compare checkpoint="$$run" $(ARGS); \
	fi

.PHONY: submit
submit: .checkpoint $(STAMP)  ## Pack a checkpoint's tracks of the test split for the DanceTrack server: make submit CKPT=…
	$(BIN)/python -m scene_track.submit checkpoint=$(call quote,$(CHECKPOINT)) $(ARGS)

.PHONY: tensorboard
tensorboard: $(STAMP)  ## Show the curves and images of all runs in the browser
	$(BIN)/tensorboard --logdir outputs

.PHONY: bench
bench: $(STAMP)  ## Run the benchmarks and write their ratios to outputs/bench.md: make bench ARGS="matcher step"
	$(BIN)/python -m benchmarks.all $(ARGS)

.PHONY: lint
lint: $(STAMP)  ## Check the format, the style and the types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

.PHONY: format
format: $(STAMP)  ## Bring the code into the format that lint asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

LOCK := $(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-annotate --no-emit-index-url --constraint constraints.txt \
	--custom-compile-command "make lock"
.PHONY: lock
lock: $(STAMP)  ## Write requirements/ again: the versions of constraints.txt with the hashes of their files
	$(PIP) uv==0.13.9
	$(LOCK) --extra dev --extra pretrained pyproject.toml -o requirements/dev.txt
	echo opencv-python-headless | $(LOCK) --no-deps - -o requirements/headless.txt

.PHONY: campaign
campaign: $(STAMP)  ## Kill, damage and resume: docs/reliability.md; ARGS="training=50" is a part
	$(BIN)/python -m tests.faults.campaign $(ARGS)

.PHONY: third-party
third-party:  ## Fetch the reference projects (optional; needs the network)
	@git submodule update --init --depth 1 || { \
		echo "could not fetch the reference projects: this needs a git clone and the network." >&2; \
		echo "They are optional; see third_party/README.md." >&2; exit 1; }

.PHONY: clean
clean:  ## Remove caches and build files (keeps outputs/, data/ and .venv/)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .coverage htmlcov *.egg-info
	find scene_track tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean  ## Remove outputs/, data/ and .venv/ too: make clean-all CONFIRM=1
	@test "$(CONFIRM)" = 1 || { echo "this removes all runs and data; type: make clean-all CONFIRM=1" >&2; exit 2; }
	rm -rf outputs data $(VENV)

# Installed again when what is to be installed has changed.
$(STAMP): pyproject.toml requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "no Python of 3.11 or newer found; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is not a Python of 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
# opencv-python (which trackers asks for) loads libGL; on a machine without it, the build that has no
# windows takes its place: the same module, and pip still counts both as installed.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || \
		$(PIP) --no-deps --force-reinstall --require-hashes -r requirements/headless.txt
	@touch $@
