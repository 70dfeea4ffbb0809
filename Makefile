# Everything that one does with the project, from a fresh clone with Python 3.11 and make. `make help` lists it.

TOPOLOGY ?=
MODE ?=
PORT_OFFSET ?=
GROUP ?= lock
NODE ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)

VENV := .venv
BIN := $(VENV)/bin
# What was installed when; made anew when the list of dependencies changes.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

# Of others' packages we install the files whose hashes are in the lock files, and build none: a build would fetch tools
# that nobody has locked. What builds our own package is locked, so that this step needs no network.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL_LOCKED := $(INSTALL) --only-binary :all: --require-hashes --requirement
INSTALL_OURS := $(INSTALL) --no-index --no-deps --no-build-isolation --editable .
NOT_INSTALLED := { echo "This could not be installed. The lock files name packages for Python 3.11 to 3.14; say" \
	"PYTHON=/path/to/it after a 'make clean' if $(PYTHON) is another one."; exit 1; }

# Both files are for every system and every Python from the oldest on. Versions that still fit stay as they are.
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --only-binary :all: --custom-compile-command 'make lock'
BUILD_REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

.DEFAULT_GOAL := help
.PHONY: help
.PHONY: up down status logs kill-leader dev
.PHONY: test lint docs
.PHONY: sim sim-selftest sim-cache sim-cache-selftest sim-shell sim-shell-selftest
.PHONY: bench-smoke bench-against bench-calls bench-failover bench-memory bench-recovery bench-snapshot bench-cache bench-hit-ratio
.PHONY: chaos-cache chaos-operator soak-disk
.PHONY: lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

up: $(RUN)  ## start a cluster: TOPOLOGY=separated|combined MODE=docker|local PORT_OFFSET=n
	@$(BIN)/mufakat up $(if $(TOPOLOGY),--topology $(TOPOLOGY)) $(if $(MODE),--mode $(MODE)) \
		$(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

down: $(RUN)  ## stop it; what it stored is kept
	@$(BIN)/mufakat down

status: $(RUN)  ## show the nodes and who leads
	@$(BIN)/mufakat status

logs: $(RUN)  ## show the nodes' logs and follow them: NODE=node1 for one
	@$(BIN)/mufakat logs --follow $(NODE)

kill-leader: $(RUN)  ## kill the leader of GROUP=lock|queue|cache, show who leads next
	@$(BIN)/mufakat kill-leader --group $(GROUP)

dev: $(DEV)  ## one node with all services on port 8001, reloading when a file changes
	@MUFAKAT_NODE_ID=node1 MUFAKAT_GROUPS=lock,queue,cache MUFAKAT_CLUSTER=node1=127.0.0.1:8001 \
		MUFAKAT_DATA_DIR=$${MUFAKAT_HOME:-.mufakat}/dev $(BIN)/adev runserver --root . --port 8001 \
		--app-factory create_app services/app.py

test: $(DEV)  ## run the tests
	$(BIN)/python -m pytest

lint: $(DEV)  ## check the style and the types
	$(BIN)/ruff check .
	$(BIN)/mypy raft common services

docs: $(DEV)  ## write the tables of docs/http-api.md from the table of operations
	$(BIN)/python -m services.http.document --write

sim: $(DEV)  ## run the deterministic simulator: SEEDS=n SEED=first
	@$(BIN)/python -m tests.sim --seeds $(or $(SEEDS),300) $(if $(SEED),--seed $(SEED))

sim-selftest: $(DEV)  ## plant known bugs and count the seeds until each is caught
	@$(BIN)/python -m tests.sim --selftest

sim-cache: $(DEV)  ## simulate the cache's leases with drifting clocks: SEEDS=n SEED=first
	@$(BIN)/python -m tests.sim.cache_cluster --seeds $(or $(SEEDS),300) $(if $(SEED),--seed $(SEED))

sim-shell: $(DEV)  ## run whole nodes in a simulated world: SEEDS=n SEED=first
	@$(BIN)/python -m tests.shell --coverage --seeds $(or $(SEEDS),200) $(if $(SEED),--seed $(SEED))

sim-shell-selftest: $(DEV)  ## plant bugs of what surrounds the core and count the seeds until each is caught
	@$(BIN)/python -m tests.shell --selftest

sim-cache-selftest: $(DEV)  ## plant bugs of the lease protocol and count the seeds until each is caught
	@$(BIN)/python -m tests.sim.cache_planted $(if $(SEEDS),--seeds $(SEEDS))

bench-smoke: $(DEV)  ## a short measurement beside a bare aiohttp handler
	$(BIN)/python -m bench.smoke

bench-failover: $(DEV)  ## how long writes stop when the leader is killed, frozen or stopped
	$(BIN)/python -m bench.failover

bench-against: $(DEV)  ## this checkout beside another one: BEFORE=/path/to/a/checkout
	@$(BIN)/python -m bench.against $(BEFORE)

bench-calls: $(DEV)  ## calls of Python functions that a request costs a node: BEFORE=/path/to/another/checkout
	@$(BIN)/python -m bench.calls $(BEFORE)

bench-memory: $(DEV)  ## bytes that a lock, a queued message and a cache key cost
	$(BIN)/python -m bench.memory

bench-recovery: $(DEV)  ## seconds to come back from a log of 200,000 entries
	$(BIN)/python -m bench.recovery

bench-snapshot: $(DEV)  ## largest stall of the event loop while a million messages are snapshotted
	$(BIN)/python -m bench.snapshot_stall

bench-cache: $(DEV)  ## hits beside a bare aiohttp handler, writes, fills, a frozen holder
	$(BIN)/python -m bench.cache

bench-hit-ratio: $(DEV)  ## hits of a bounded node on a Zipf trace, beside an ideal LRU
	$(BIN)/python -m bench.hit_ratio

chaos-cache: $(DEV)  ## three minutes of faults on a real cache, judged by the checker: SECONDS=n (partitions as root)
	$(BIN)/python -m tests.chaos.cache --seconds $(or $(SECONDS),180)

chaos-operator: $(DEV)  ## ten minutes of random commands on a local cluster while clients write: SECONDS=n SEED=n
	@$(BIN)/python -m tests.chaos.operator --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

soak-disk: $(DEV)  ## three minutes of writes on 64 MiB disks, one of which is filled on purpose (as root)
	$(BIN)/python -m bench.soak_disk

lock: $(DEV)  ## make the lock files follow pyproject.toml: UPGRADE=all or a package takes what is newest
	@$(BIN)/python -c '$(BUILD_REQUIRES)' | $(COMPILE) pyproject.toml - --extra dev --output-file requirements/dev.txt \
		$(if $(UPGRADE),$(if $(filter all,$(UPGRADE)),--upgrade,--upgrade-package $(UPGRADE)))
	@$(BIN)/python -c '$(BUILD_REQUIRES)' | $(COMPILE) pyproject.toml - --constraint requirements/dev.txt \
		--no-annotate --output-file requirements/run.txt --upgrade

clean:  ## delete what was installed; the data of a cluster stays
	rm -rf $(VENV) *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No python3 was found. Install Python 3.11 or newer, or say PYTHON=/path/to/it."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11. Install a newer one, or say PYTHON=/path/to/it."; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment. On Debian: apt-get install python3-venv."; exit 1; }

$(RUN): pyproject.toml requirements/run.txt | $(BIN)/python
	@echo "Installing what the nodes need."
	@$(INSTALL_LOCKED) requirements/run.txt || $(NOT_INSTALLED)
	@$(INSTALL_OURS)
	@touch $@

$(DEV): pyproject.toml requirements/dev.txt | $(BIN)/python
	@echo "Installing what the nodes and the tests need."
	@$(INSTALL_LOCKED) requirements/dev.txt || $(NOT_INSTALLED)
	@$(INSTALL_OURS)
	@touch $(RUN) $@
