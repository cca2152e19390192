# The project's commands. `make help` lists them.

CARGO ?= cargo
# Extra arguments for the demonstration, as in: make demo DEMO="--flavor mariadb --seconds 60"
DEMO ?=
# Tests at a time in a suite, and suites at a time: they wait more than they work.
TEST_THREADS ?= 2
SUITES_AT_ONCE ?= 2
# `one` runs what is tested on both brands of server on one of them, with the next commit on the other.
BRANDS ?= both
# One test binary for `make soak`, as in: make soak SUITE=kill_matrix
SUITE ?=

# Servers of other versions come in by variable (make hands it on): make test CROSSFADE_MYSQLD=/opt/mysql-8.4/bin/mysqld

.DEFAULT_GOAL := help
.PHONY: help servers demo test soak bench fmt lint

help: ## Lists the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 12

servers: ## Puts MySQL 9.7 and MariaDB on this machine, where they are missing
	@scripts/servers.sh

demo: servers ## A whole pair at work on two private servers, in under 90 s after the build
	$(CARGO) build --release -p crossfade-cli
	target/release/crossfade --log warn demo $(DEMO)

test: servers ## All tests; BRANDS=one as the continuous integration runs them
	CARGO=$(CARGO) BRANDS=$(BRANDS) TEST_THREADS=$(TEST_THREADS) SUITES_AT_ONCE=$(SUITES_AT_ONCE) scripts/test.sh

soak: servers ## The long form of the end-to-end tests, or of one: SUITE=kill_matrix, backfill, faults, ping_pong, two_ways, idle, …
	$(CARGO) build --release -p crossfade-cli -p users-service
	CROSSFADE_SOAK=1 $(CARGO) test --release -p crossfade-tests --test $(if $(SUITE),$(SUITE),'*') --no-fail-fast -- --nocapture

bench: servers ## Measures speed and writes docs/performance.md, in hours; QUICK=1 takes some minutes and writes no page
	scripts/bench.sh

fmt: ## Formats the code
	$(CARGO) fmt --all

lint: ## What the continuous integration refuses
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
