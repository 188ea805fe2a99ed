# make book   executes every chapter and builds the book        make lint   checks style, types, pairs
# make test   runs the tests                                    make sync   writes chapters/*.ipynb
# make student  the book without solutions, in _build/student
# make book-full  a book beside it, with fine-tuning as long as the paper's, of two models: hours on
#                 two cores, and it goes on where it was cut off
# make test-slow  the tests left out of test: hours on two cores
# make gpu-check  every test and benchmark that wants a GPU, in benchmarks/gpu.json; needs no .venv and
#                 no network: PYTHON=python3 is one with PyTorch, WHEELS=folder holds what it lacks
# Needs Python 3.11 or newer, make and a shell; everything else goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
# The stamp of a finished environment carries the checksum of the lock it was made from.
READY := $(VENV)/ready-$(shell cat requirements.lock 2>/dev/null | cksum | cut -d ' ' -f 1)
CXRBOOK := $(BIN)/python -m cxrlib.cli
# Images for containers often tell Python to keep no bytecode. Hundreds of processes would then each
# compile what they import anew: half of the time that importing takes.
export PYTHONDONTWRITEBYTECODE =
UV_VERSION := 0.13.9
# uv lives apart from the packages, which it keeps exactly as locked.
UV := $(VENV)/tools/bin/uv
# The first Python that is new enough and can make a virtual environment.
FIND_PYTHON = for p in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
	if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$p; break; fi; done

.PHONY: book book-full student test test-slow gpu-check phantom-models sync lint lock clean

book: $(READY)
	@$(CXRBOOK) build

JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Chapter 3 as X trained: 150 epochs, on each of five splits; of both small CLIPs.
book-full: $(READY)
	@$(CXRBOOK) build --out _build/full --profile long-training -p jobs=$(JOBS)

# The same book without solutions and without the pages for teachers.
student: $(READY)
	@$(CXRBOOK) build --edition student

# The tests open the pages of the book.
test: book
	@sh tests/install_chromium.sh
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test-slow: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

gpu-check:
	@$(or $(PYTHON),$(wildcard $(BIN)/python),python3) benchmarks/gpu.py \
		$(if $(WHEELS),--wheels $(WHEELS))

phantom-models: $(READY)
	@$(BIN)/python -m cxrlib.predict.phantom_models

sync: $(READY)
	@$(CXRBOOK) sync

lint: $(READY)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python -m mypy
	@$(CXRBOOK) sync --check

lock: $(READY)
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command 'make lock' \
		--quiet --output-file requirements.lock

# All that was made, but for the answers that somebody wrote for a dossier.
clean:
	@mkdir -p _build book/chapters
	find _build book/chapters ! -type d ! -name answers.yaml -delete
	find _build book/chapters -type d -empty -delete

# Made anew whenever the lock changes; the stamp comes last, so half an environment never counts.
$(READY):
	@if [ ! -f requirements.lock ]; then \
		echo "requirements.lock is missing: restore it with 'git checkout requirements.lock'" >&2; \
		exit 1; \
	fi; \
	python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo 'Python 3.11 or newer with venv is needed (Debian, Ubuntu: install python3-venv)' >&2; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$($$python --version) and installing the locked packages" >&2; \
	$$python -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(VENV)/tools uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes requirements.lock
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --offline --no-deps --no-build-isolation -e .
	@touch $@
