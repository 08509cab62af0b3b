# What people do with this repository. Each target is a script under .ci that says what it does; a fresh Debian 12 with a
# Rust toolchain is enough, and what is already there is not fetched again.

# The server version of demo and lint, and of test when given: 15, 16 or 18.
PG ?= 15
# The server versions of test.
PGS ?= $(if $(filter file,$(origin PG)),15 16,$(PG))
# Which kinds of test.
KINDS ?= unit regress isolation cluster layout
# Faults of chaos, about one a second, and the seed of its plan; empty for a random one, which is printed.
CYCLES ?= 300
SEED ?=
# Figures of bench (all), how often each is measured (3, quick 1), and small sizes: to see that it works, in five minutes.
ONLY ?=
ROUNDS ?=
QUICK ?=
# Whose PostgreSQL `make install` installs into.
PG_CONFIG ?= pg_config

# What dry-run writes to, and what it compares with; the exit code is 1 where something is worse.
OUT ?=
BASELINE ?=

.PHONY: help demo dry-run test chaos bench directus-test install lint clean

help:
	@echo "make demo                 build, start a private cluster and an agent, and show the whole of it"
	@echo "make dry-run              plan and verify all 103 KG tools, a verdict each; OUT=now.json BASELINE=then.json"
	@echo "make test                 every test on PostgreSQL 15 and 16; PG=18 for one version, KINDS=\"$(KINDS)\""
	@echo "make chaos                random load and $(CYCLES) crashes, then ledger and agent compared; CYCLES=25 SEED=1 PG=16"
	@echo "make bench                throughput, latency and cost beside graphile-worker (fetched); ONLY=drain,latency QUICK=1 ROUNDS=5"
	@echo "make directus-test        the request table over HTTP, through a real Directus 11 (fetched: 1 GB)"
	@echo "make install PG_CONFIG=…  build for production and install into that PostgreSQL"
	@echo "make lint                 formatting, clippy, documentation"
	@echo "make clean                remove what was built and downloaded (not Debian's packages)"

demo:
	@.ci/setup $(PG)
	@.ci/install-dev $(PG)
	@examples/demo.sh $(PG)

dry-run:
	@.ci/setup $(PG)
	@.ci/install-dev $(PG)
	@OUT="$(OUT)" BASELINE="$(BASELINE)" examples/dry_run.sh --pg $(PG)

test:
	@.ci/setup $(PGS) pgspot
	@.ci/test "$(PGS)" "$(KINDS)"

chaos:
	@.ci/setup $(PG)
	@.ci/install-dev $(PG) --tests
	@CYCLES="$(CYCLES)" SEED="$(SEED)" .ci/chaos $(PG)

bench:
	@.ci/setup $(PG)
	@ONLY="$(ONLY)" ROUNDS="$(ROUNDS)" QUICK="$(QUICK)" .ci/bench $(PG)

directus-test:
	@.ci/setup $(PG)
	@.ci/install-dev $(PG)
	@.ci/directus $(PG)

install:
	@.ci/setup tools
	@.ci/install-release "$(PG_CONFIG)"

lint:
	@.ci/setup $(PG)
	@.ci/lint $(PG)

clean:
	@.ci/clean
