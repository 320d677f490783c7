# The first Python that is new enough; say PYTHON=... to use another.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
RUN := .venv/run.stamp
DEV := .venv/dev.stamp
KSERVE := .venv/kserve.stamp
TRITON := .venv/triton.stamp
AGENTS := .venv/agents.stamp

.DEFAULT_GOAL := help
.PHONY: help compare test test-slow lint pre-commit lock protos profiles results ingredients agents goals bench bench-quick reproduce proposition search fuzz docs release clean

help:  ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

compare: $(RUN)  ## Compare all schemes in the paper's scenario and with a real DNN, into results/
	$(BIN)/partway compare --scenario paper --out results/paper --overwrite
	$(BIN)/partway compare --scenario ocr --out results/ocr --overwrite

test: lint  ## Lint, check types, run the tests that take seconds
	$(BIN)/pytest -n 2 --dist loadscope -m "not slow"

test-slow: $(DEV) $(KSERVE) $(TRITON) $(AGENTS)  ## Run the tests that take longer
	$(BIN)/pytest -n 2 --dist loadscope -m slow

lint: $(DEV)  ## Check style, format, imports between packages and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/basedpyright --pythonpath $(BIN)/python

pre-commit: $(DEV)  ## Correct style and format, then lint: what the hooks of .pre-commit-config.yaml do
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(MAKE) lint

lock: $(DEV)  ## Write both pin files; newest versions with PINS=--upgrade
	$(BIN)/pip-compile --quiet $(PINS) --output-file requirements.txt pyproject.toml
	$(BIN)/pip-compile --quiet $(PINS) --output-file requirements-dev.txt \
		--extra dev --constraint requirements.txt pyproject.toml

# code of this version is accepted by every protobuf from 5.29 on; it needs an older one than the other tools
PROTOC := grpcio-tools==1.71.2
protos: $(DEV)  ## Generate partway/live/proto/*_pb2.py from the .proto files beside them
	test -x .venv/protos/bin/python || $(PYTHON) -m venv .venv/protos
	.venv/protos/bin/python -m pip install -qq --disable-pip-version-check $(PROTOC)
	.venv/protos/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. partway/live/proto/*.proto

profiles: $(DEV)  ## Write partway/dnn/profiles/*.csv from ONNX models
	$(BIN)/python scripts/make_profiles.py

results: $(DEV)  ## Write the comparisons and pictures of docs/results.md from new runs (minutes)
	$(BIN)/python scripts/make_results.py

bench: $(DEV)  ## Measure speed and memory, into docs/benchmarks.md (up to 45 minutes)
	$(BIN)/python -m benchmarks

bench-quick: $(DEV)  ## Check that Partway agrees with the programs it is measured against (two minutes)
	$(BIN)/python -m benchmarks --quick

goals: $(DEV)  ## Write the gap of priced and Theorem 1 in docs/results.md from new runs (minutes)
	PYTHONPATH=. $(BIN)/python scripts/make_goals.py

ingredients: $(DEV)  ## Write what each part of qlearning-designed brings into docs/results.md from new runs (half an hour)
	$(BIN)/python scripts/ingredients.py

agents: $(AGENTS)  ## Train PPO and independent PPO with ten seeds each, into docs/results.md (hours); resumes if interrupted
	PYTHONPATH=. .venv/agents/bin/python scripts/make_agents.py

reproduce: $(RUN)  ## Reproduce section VI of the paper, into results/reproduction; resumes if interrupted
	$(BIN)/partway reproduce --out results/reproduction --table docs/paper.md --overwrite
	for n in 6 7 8 9 6-as-printed 7-as-printed 8-as-printed 9-as-printed; do \
		cp results/reproduction/figure-$$n.png docs/img/paper-figure-$$n.png; done
	mkdir -p docs/data/reproduction
	cp results/reproduction/*.csv results/reproduction/verdicts.md results/reproduction/report.json docs/data/reproduction

proposition: $(DEV)  ## Measure Proposition 1 and Remark 2, into docs/proposition-1.md (ten minutes); resumes if interrupted
	$(BIN)/python scripts/proposition1.py

CANDIDATE ?= parametric-printed
STAGE ?= screen
search: $(DEV)  ## One stage of the search for unpublished values, an hour at most: CANDIDATE=parametric STAGE=screen
	PYTHONPATH=.:scripts $(BIN)/python -m search --candidate $(CANDIDATE) --stage $(STAGE)

fuzz: $(DEV)  ## Try mutated inputs, damaged files, signals and full disks; counts into docs/reliability.md (half an hour)
	$(BIN)/python -m fuzz

docs: $(DEV)  ## Build the documentation site, run its notebooks and check its links, into docs/_build/html (minutes)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --jobs 2 docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

release: $(DEV)  ## Check, build and describe a release without publishing it; TAG=1 also tags the commit
	$(BIN)/python scripts/release.py $(if $(TAG),--tag)

clean:  ## Remove everything that was generated, including .venv
	rm -rf .venv build dist results *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes --requirement requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.txt $(RUN)
	$(PIP) --require-hashes --requirement requirements-dev.txt
	@touch $@

# a model server that a test runs beside ours; its requirements are not ours, so it has an environment of its own
$(KSERVE): $(RUN)
	test -x .venv/kserve/bin/python || $(PYTHON) -m venv .venv/kserve
	.venv/kserve/bin/python -m pip install -qq --disable-pip-version-check kserve==0.21.0 onnxruntime==1.32.0
	@touch $@

# Triton's client, which a test points at our server
$(TRITON): $(RUN)
	test -x .venv/triton/bin/python || $(PYTHON) -m venv .venv/triton
	.venv/triton/bin/python -m pip install -qq --disable-pip-version-check "tritonclient[grpc]==2.73.0"
	@touch $@

# PyTorch and what is built on it; its wheels differ between indexes, so it is in no file of hashes and comes first
$(AGENTS): $(RUN)
	test -x .venv/agents/bin/python || $(PYTHON) -m venv .venv/agents
	.venv/agents/bin/python -m pip install -qq --disable-pip-version-check torch==2.13.0
	.venv/agents/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --requirement requirements.txt
	.venv/agents/bin/python -m pip install -qq --disable-pip-version-check stable-baselines3==2.9.2
	@touch $@
