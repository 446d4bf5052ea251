# `make demo` and `make test` need only Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Where torch and torchvision are taken from, if not from where the rest is: docs/how-to.md, "Which torch to install".
TORCH_INDEX ?=
# On which Pythons `make edge` tries the light install, such as "3.11 3.13"; all that are here where it is empty.
PYTHONS ?=

.PHONY: help install demo test quick lint types format docs prove wheel edge check clean

help: ## show these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv and install Stillroom with its tools into it (several minutes the first time)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Stillroom needs Python 3.11 or newer; say which: make PYTHON=python3.12 install"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if test -n "$(TORCH_INDEX)"; then \
		$(BIN)/pip install --quiet --disable-pip-version-check --index-url '$(TORCH_INDEX)' 'torch>=2.11' 'torchvision>=0.26'; \
	elif test "$$(uname -sm)" = "Linux x86_64" && ! command -v nvidia-smi >/dev/null; then \
		echo "No GPU is to be seen here. torch for the CPU takes some hundred MB: see 'Which torch to install' in docs/how-to.md."; \
	fi
	@echo "Installing into $(VENV): torch and what belongs to it, several GB the first time."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -m stillroom.deployment.page.bring || echo "Without it, 'stillroom page' makes no pages; the rest works."
	@touch $@

demo: install ## distil a small classifier on synthetic phantoms and print where its report is
	@$(BIN)/stillroom demo

# A process per core, eight at most, each with one thread of torch's: twice as fast as one process with two.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile

test: install ## run every test but the few that `make prove` runs
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL)

# The rooms whose tests compute and read, but make no run: below 90 seconds on two cores.
QUICK := $(addprefix tests/,settings task files data planning evaluation distillation training test_progress.py test_ranges.py)

quick: install ## run the tests of the lower rooms, without those that take long (a minute and a half)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) -m "not slow and not prove" $(QUICK)

lint: install ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## check types
	$(BIN)/mypy

format: install ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## write docs/reference.md anew from the code
	$(BIN)/python docs/make_reference.py

prove: install ## simulate intervals, kill runs and change what users give (most of an hour; what was stopped goes on)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) -m prove
	OMP_NUM_THREADS=1 $(BIN)/python proofs/luck.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/relative.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/intervals.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/shares.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/subgroups.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/calibration.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/operating_points.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/readers.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/heat_maps.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/injected.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/kills.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/flips.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/mutated.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/mutated_dicom.py
	OMP_NUM_THREADS=1 $(BIN)/python proofs/malformed.py

wheel: install ## build the wheel, install it away from the checkout, and try it
	rm -rf build/wheel
	$(BIN)/python -m stillroom.deployment.page.bring
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	OMP_NUM_THREADS=1 $(BIN)/python .ci/try_wheel.py build/wheel/*.whl

edge: install ## run the tests of a device in clean environments without torch, on each Python from 3.11 to 3.13 that is here
	rm -rf build/wheel
	$(BIN)/python -m stillroom.deployment.page.bring
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	OMP_NUM_THREADS=1 $(BIN)/python .ci/try_light.py build/wheel/*.whl $(PYTHONS)

check: lint types test ## all that a change must pass

clean: ## remove what can be made again, but no runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
