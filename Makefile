# One verb for each need; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SITE := $(VENV)/.site
export PATH := $(abspath $(BIN)):$(PATH)
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo gallery check test test-slow test-faults test-elsewhere fault-campaign masking-campaign docs site tour bench build package clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY)  ## make .venv with everything but the extras (about 6 GB, minutes)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed")'
	@echo "setting up $(VENV): about 6 GB, this takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

demo: install  ## natural training, AT and ADR on digits under AutoAttack, side by side (minutes)
	recipes/digits-demo.sh demo

gallery: install  ## train on digits and draw every picture of docs/gallery.md anew (15 minutes)
	PICTURES=docs/images/gallery recipes/gallery.sh gallery

check: install  ## formatting, lint, types, generated docs
	ruff format --check .
	ruff check .
	mypy
	mypy tools
	mypy benchmarks
	mypy recipes
	python tools/docs/generate.py --check
	python tools/docs/results.py --check
	python tools/docs/scaling.py --check

test: install  ## the test suite (minutes)
	pytest -n 2 -m 'not slow and not faults'

test-slow: install  ## the tests that take minutes
	pytest -n 2 -m slow

test-faults: install  ## a sample of every row of the fault table (docs/reliability.md; minutes)
	pytest -n 2 tests/faults

test-elsewhere: install  ## the suite as on other machines and versions (an hour; VARIANTS="floors busy")
	python tools/elsewhere.py $(VARIANTS)

fault-campaign: install  ## the table's full counts (an hour); PARTS="kills-at same", or fuzz
ifeq ($(PARTS),fuzz)
	python -m tests.faults.fuzz_campaign --out docs/fuzz-campaign.json
else
	python -m tests.faults.campaign $(PARTS)
endif

masking-campaign: install  ## how often `analyze masking` is wrong (an hour or two); DATA=folder:DIR for colour images
	python -m tests.analyses.masking_campaign build/masking $(DATA)

docs: install  ## rewrite the generated pages
	python tools/docs/generate.py
	python tools/docs/results.py
	python tools/docs/scaling.py

site: install $(SITE)  ## the pages as a web site with a search, in build/site
	PYTHONPATH=$(VENV)/site python -m sphinx -W --keep-going -n -q -E -b html docs build/site
	@echo "open build/site/index.html"

# In a folder of its own: Sphinx and torchattacks ask for different versions of a package.
$(SITE): $(READY)
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["site"], sep="\n")' > $(VENV)/site.txt
	$(BIN)/python -m pip install --quiet --upgrade --no-warn-conflicts --target $(VENV)/site --requirement $(VENV)/site.txt
	touch $@

tour: install  ## run docs/tour.ipynb and write its outputs anew
	python tools/docs/tour.py

bench: install  ## time what advkit claims to be fast (BENCH=step, overheads, cores, linear, soft_labels, autoattack, startup, decode)
	python benchmarks/$(or $(BENCH),step).py

build: install  ## source distribution and wheel, in dist/
	rm -rf dist
	python -m build

package: build  ## the wheel in a fresh environment, used from another folder (5 GB meanwhile; minutes)
	.ci/package

clean:  ## remove demo, build and caches (never runs/)
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
