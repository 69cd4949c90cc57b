# Eigenlens: `make demo` from a clone to a running search service, `make test` from a clone to a passed test suite.
# Both do all set-up; a second call reuses what is there.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The demo's images: the sample, or your own folder with `make demo IMAGES=dir`.
IMAGES ?= fashion-mnist
HOST ?= 127.0.0.1
PORT ?= 8080
ifeq ($(IMAGES),fashion-mnist)
DEMO := .demo/fashion-mnist
else
# One place for each folder, however it is spelt.
NAME_OF := import hashlib, os, re, sys; path = os.path.realpath(sys.argv[1]); \
	print(re.sub(r"[^A-Za-z0-9._]", "-", os.path.basename(sys.argv[1].rstrip("/"))), hashlib.sha256((path + "\n").encode()).hexdigest()[:8], sep="-")
DEMO := .demo/$(shell $(PYTHON) -c '$(NAME_OF)' "$(IMAGES)")
endif

.PHONY: demo test check lint client docs lock package vulnerabilities clean help

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 24

demo: $(READY)  ## train, index and serve 70,000 product photographs, or IMAGES=dir, at http://127.0.0.1:8080
ifeq ($(IMAGES),fashion-mnist)
	@PATH="$(abspath $(BIN)):$$PATH" docker/prepare.sh $(DEMO) $(DEMO)/gallery "$(IMAGES)"
	$(BIN)/eigenlens serve --gallery $(DEMO)/gallery --host $(HOST) --port $(PORT)
else
	$(BIN)/eigenlens up "$(IMAGES)" --work $(DEMO) --host $(HOST) --port $(PORT) --no-browser
endif

# Five at a time, each on one thread: teams of threads that share the cores with others wait for each other, and five
# tests keep two cores busy while some wait for processes and sockets. Tests that measure time run alone afterwards.
WORKERS ?= 5
SELECTED := not timing
# Files with such tests: the others need not be imported for them.
TIMED = $(shell grep -rl --include='test_*.py' 'mark[.]timing' tests)
PYTEST := $(BIN)/python -m pytest $(PYTEST_ARGS)
# Where the environment forbids to keep bytecode, each of the processes that tests start would compile the sources anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY) $(VENV)/.browser $(VENV)/.warm  ## set everything up and run the whole test suite, lint, types and contracts included
	OMP_NUM_THREADS=1 $(PYTEST) --numprocesses $(WORKERS) --dist worksteal -m "$(SELECTED)"
	$(PYTEST) -m timing $(TIMED)

check: SELECTED := not timing and not lint
check: $(READY) lint test  ## what CI runs, the quick checks first

lint: $(READY)  ## format, lint, types and import contracts only
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

client: $(READY)  ## generate the blocking client from the one for asyncio
	$(BIN)/python -m tests.support.generate_client

docs: $(VENV)/docs/.ready  ## build the documents as a site that needs no other host: build/site/index.html
	$(VENV)/docs/bin/mkdocs build --quiet --strict
	@echo "open build/site/index.html, or with its search: python3 -m http.server --directory build/site"

# In an environment of its own, since nothing else needs it.
$(VENV)/docs/.ready: constraints.txt
	@test -x $(VENV)/docs/bin/pip || $(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt mkdocs-material
	@touch $@

# What the service image installs, in the exact versions of constraints.txt. A lock is named by its extras.
lock: $(VENV)/lock/.ready  ## write the hashes of what the service image installs, after a change of its packages
	for variant in $(patsubst docker/locks/%.txt,%,$(wildcard docker/locks/*.txt)); do \
		$(PYTHON) docker/requirements.py $$(echo $$variant | tr - ' ') > $(VENV)/lock/requirements.in \
		&& $(VENV)/lock/bin/pip-compile --quiet --generate-hashes --strip-extras --no-annotate --no-header --no-emit-index-url \
			--no-emit-find-links --no-emit-options --constraint constraints.txt --output-file $(VENV)/lock/new.txt \
			$(VENV)/lock/requirements.in \
		&& { echo "# The packages of the service image (VARIANT=$$variant) with the hashes of their files. Written by \`make lock\`."; \
			cat $(VENV)/lock/new.txt; } > docker/locks/$$variant.txt || exit 1; \
	done

$(VENV)/lock/.ready: constraints.txt
	@test -x $(VENV)/lock/bin/pip || $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt pip-tools
	@touch $@

package: $(VENV)/package/.ready  ## build the sdist and its wheel in build/dist, and check what they say and hold
	rm -rf build/dist build/lib build/bdist.*
	$(VENV)/package/bin/python -m build --no-isolation --outdir build/dist >build/package.log 2>&1 || { cat build/package.log; exit 1; }
	$(VENV)/package/bin/twine check --strict build/dist/*
	$(VENV)/package/bin/check-wheel-contents build/dist/*.whl

# A package that the database was not asked about is no package without vulnerabilities: --strict fails there.
vulnerabilities: $(VENV)/package/.ready  ## list known vulnerabilities of the pinned packages; needs pypi.org, which has the database
	$(VENV)/package/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off --requirement constraints.txt \
		|| { echo "Not every package is known to be without vulnerabilities: one has some, or pypi.org did not tell (above)."; exit 1; }

$(VENV)/package/.ready: constraints.txt
	@test -x $(VENV)/package/bin/pip || $(PYTHON) -m venv $(VENV)/package
	$(VENV)/package/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		build check-wheel-contents pip-audit setuptools twine
	@mkdir -p build && touch $@

clean:  ## remove the environment, the demo and all caches
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian splits venv from python3; where it is missing, root can install it. pip would compile on one core.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[cpu,train,pretrained,graphs,bench,dev,openvino,otel,postgres,qdrant,svs]'
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true  # some files are for other versions of Python
	@touch $@

# What every first run of the tests would do, in each of its processes: compile the tests, read the types of packages.
$(VENV)/.warm: export PYTHONDONTWRITEBYTECODE :=
$(VENV)/.warm: $(READY)
	@$(PYTEST) --collect-only >/dev/null || true  # what is wrong, the tests say
	@$(BIN)/python -m tests.support.warm_types
	@touch $@

# The browser tests drive Debian's chromium, in its headless shell where there is one: a visit of the page takes a third
# of the time. Without root they are skipped, and say so.
APT_INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends
$(VENV)/.browser: | $(READY)
	@command -v chromium-headless-shell >/dev/null \
		|| { timeout 100 apt-get update -q && { $(APT_INSTALL) chromium-headless-shell || $(APT_INSTALL) chromium; }; } \
		|| command -v chromium >/dev/null \
		|| echo "chromium is not installed: the browser tests will be skipped (apt-get install chromium-headless-shell)"
	@touch $@
