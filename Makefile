# The two that matter: `make run` starts the gateway with the embedded engine, `make test` proves the tree.
# Everything lives in .venv; nothing is installed outside this folder.

# The first Python on the path that is new enough; name another with `make PYTHON=…`.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help run test coverage check test-clients test-page screenshots test-system stress format protos eval fuzz gaps bench bench-full soak lock audit docs docs-serve docs-tables changelog clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "brunix_twisted needs Python 3.11 or newer on the path; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/installed

run: $(VENV)/installed  ## install, and serve the shipped documentation through the gateway
	@exec env PATH="$(CURDIR)/$(BIN):$$PATH" ./entrypoint.sh

# What may depend on which of its two clients asks the engine is tested with each; this reactor makes it the second one.
WITHOUT_THREADS := $(patsubst %,tests/api/test_%.py,completion faults heartbeat promises routes) tests/observability/test_tracing.py

# Those that start no process and open no socket, by what they import.
PURE = $(shell grep -rLE --include='test_*.py' --exclude-dir=system --exclude-dir=site --exclude-dir=clients --exclude-dir=node_modules \
    '^(import|from) (asking|brunix_twisted.embedded.(converter|library)|certificates|cli_[a-z]+|engine_clients|fake_servers|gateways|language_models|limited|redis_servers|scripted_engine|served_engine|several_processes|socket|stand_ins|stream_clients|subprocess|supervised|twistd|wheels)\b' tests)

# With COVERAGE=1 the tests are measured, and all that they start; the report comes at the end (see pyproject.toml).
PYTEST := $(BIN)/$(if $(COVERAGE),coverage run -m )pytest

STATIC := "$(BIN)/ruff check" "$(BIN)/ruff format --check" "$(BIN)/mypy"

# A process that was killed while it wrote its coverage leaves an empty file.
test: $(VENV)/installed-dev  ## lint, format check, type check and every test
	@$(if $(COVERAGE),$(BIN)/coverage erase)
	@$(BIN)/python tests/support/side_by_side.py "$(PYTEST) -n auto" \
	    "$(PYTEST) -n 2 --reactor=asyncio -m 'not own_process' $(WITHOUT_THREADS)" $(STATIC)
	@$(if $(COVERAGE),find .coverage -size 0 -delete && $(BIN)/coverage combine --quiet && $(BIN)/coverage report)

coverage:  ## `make test`, with a report of the lines and branches that no test reaches
	@$(MAKE) --no-print-directory test COVERAGE=1

check: $(VENV)/installed-dev  ## lint, format check, type check and the tests that start nothing, in less than a minute
	@$(BIN)/python tests/support/side_by_side.py "$(BIN)/pytest --quiet -n auto $(PURE)" $(STATIC)

# The clients' own environments: see docs/clients.md.
.venv-clients/%/installed: tests/clients/%.txt | $(BIN)/python
	$(BIN)/python -m venv --clear .venv-clients/$*
	.venv-clients/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Not `npm ci`: it fails if a registry lacks an optional package that is for another system.
tests/clients/node_modules/installed: tests/clients/package-lock.json
	npm install --no-save --prefix tests/clients --ignore-scripts --no-audit --no-fund
	@touch $@

test-clients: $(VENV)/installed-dev .venv-clients/openai-2/installed .venv-clients/openai-3/installed $(VENV)-bench-litellm/installed tests/clients/node_modules/installed  ## test the real clients against a running gateway (needs Node 20)
	$(BIN)/python tests/clients/run.py

tests/page/node_modules/installed: tests/page/package-lock.json
	@command -v npm >/dev/null || { echo "the page's tests need Node 20 and its npm; neither is on the path" >&2; exit 1; }
	npm ci --prefix tests/page --ignore-scripts --no-audit --no-fund
	@touch $@

test-page: $(VENV)/installed-dev tests/page/node_modules/installed  ## test the page in a real browser (needs Node 20 and Chromium)
	$(BIN)/python tests/page/browse.py

screenshots: $(VENV)/installed-dev tests/page/node_modules/installed  ## take the pictures in docs/images again, with this machine's fonts
	$(BIN)/python tests/page/browse.py --screenshots

test-system: $(VENV)/installed-dev  ## run under a real systemd and behind real proxies (needs root, and Debian packages)
	$(BIN)/pytest tests/system

stress: $(VENV)/installed-dev  ## run `make test` twenty times, every second time on a busy machine
	$(BIN)/python tests/support/stress.py $(STRESS)

format: $(VENV)/installed-dev  ## let ruff fix and format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The file is compiled under the package's path so that the generated import lines, and the name under which the
# protobuf runtime registers it, are this package's own.
protos: $(VENV)/installed-dev  ## generate brunix_twisted/_pb from protos/
	$(BIN)/python -m grpc_tools.protoc --proto_path=brunix_twisted/_pb=protos \
	    --plugin=$(BIN)/protoc-gen-mypy_grpc \
	    --python_out=. --pyi_out=. --grpc_python_out=. --mypy_grpc_out=. brunix_twisted/_pb/brunix.proto

# In a separate environment: the tests run without embeddings, with which every engine would start more slowly.
$(VENV)-semantic/installed: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-semantic
	$(VENV)-semantic/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,semantic]'
	@touch $@

eval: $(VENV)-semantic/installed  ## measure how well the embedded engine answers, by kind of question
	$(VENV)-semantic/bin/python -m brunix_twisted.embedded --evaluate
	$(VENV)-semantic/bin/python tests/support/evaluated_corpora.py
	$(VENV)-semantic/bin/python -m pytest --quiet tests/embedded/test_semantic.py

# In an environment of its own: it brings libraries that neither the gateway nor its tests need.
$(VENV)-fuzz/bin/st: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet --disable-pip-version-check 'schemathesis==4.32.*'

fuzz: $(VENV)/installed-dev $(VENV)-fuzz/bin/st  ## send generated requests to the gateway
	$(BIN)/python tests/support/fuzz_openapi.py $(CURDIR)/$(VENV)-fuzz/bin/st

gaps: $(VENV)/installed-dev  ## show that tokens reach the client as the engine sends them
	$(BIN)/python benchmarks/token_gaps.py

# In an environment of its own: what the gateway is compared with must not be there where it is tested.
$(VENV)-bench/installed: pyproject.toml | $(BIN)/python
	@test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

$(VENV)-bench-litellm/installed: benchmarks/baselines/litellm.txt | $(BIN)/python
	$(PYTHON) -m venv --clear $(VENV)-bench-litellm
	$(VENV)-bench-litellm/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench: $(VENV)-bench/installed $(VENV)-bench-litellm/installed  ## compare the gateway with what it replaces, in about 3 minutes
	$(VENV)-bench/bin/python benchmarks/bench.py $(BENCH)

bench-full: $(VENV)-bench/installed $(VENV)-bench-litellm/installed  ## the full benchmark, in about 30 minutes
	$(VENV)-bench/bin/python benchmarks/bench.py --form full $(BENCH)

soak: $(VENV)-bench/installed  ## run 100,000 requests with every kind of end, for half an hour at most
	$(VENV)-bench/bin/python benchmarks/soak.py $(SOAK)

$(VENV)-audit/installed: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-tools==7.*' 'pip-audit==2.*'
	@touch $@

# For Python 3.11, the oldest supported: what is locked for it installs on the newer ones too.
lock: $(VENV)-audit/installed  ## pin the dependencies of the gateway and of its wheel's build, with hashes
	$(VENV)-audit/bin/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --no-header --upgrade --extra tls --extra otel --extra redis --extra documents --output-file requirements.lock pyproject.toml
	$(VENV)-audit/bin/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --no-header --upgrade --build-deps-for wheel --only-build-deps --allow-unsafe \
	    --output-file requirements-build.lock pyproject.toml

audit: $(VENV)-audit/installed  ## check the locked releases for known vulnerabilities
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --requirement requirements.lock

# In an environment of its own: neither the gateway nor its tests need any of it.
$(VENV)-docs/installed: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

docs: $(VENV)/installed-dev $(VENV)-docs/installed  ## build the documentation in site/, and check it
	$(VENV)-docs/bin/mkdocs build --quiet --strict
	$(BIN)/pytest tests/site

docs-serve: $(VENV)-docs/installed  ## serve that site on http://127.0.0.1:8001, rebuilt at each change
	$(VENV)-docs/bin/mkdocs serve

docs-tables: $(VENV)/installed-dev  ## generate the tables in docs/ from the code
	$(BIN)/python tests/support/parameter_tables.py
	$(BIN)/python tests/support/settings_table.py
	$(BIN)/python tests/support/metrics_table.py
	$(BIN)/python tests/support/client_sections.py
	$(BIN)/python tests/support/side_request_table.py

changelog: $(VENV)/installed-dev  ## preview the changelog of the next release
	@$(BIN)/towncrier build --draft

clean:  ## remove the virtual environment and every cache
	rm -rf $(VENV) $(VENV)-* tests/clients/node_modules tests/page/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .stress .coverage build dist site
	find brunix_twisted twisted tests -name __pycache__ -prune -exec rm -rf {} + -o -name dropin.cache -delete
