SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Outside the checkout, so that a fresh clone finds what was built. One target and one profile for
# the image and the tests: dependencies are built once.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lambent/target
CARGO_FLAGS := --release --target x86_64-unknown-linux-musl $(if $(CI),--locked)
CRDS := deploy/crds.yaml
CHART_CRDS := charts/lambent/files/crds

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: cluster
cluster: ## bring the test cluster up to date; use: eval "$(make -s cluster)"
	@tests/cluster/cluster ready

.PHONY: cluster-down
cluster-down: ## remove the test cluster and all its traces
	@tests/cluster/cluster down

.PHONY: test
test: ## all of lint, current generated files, unit and end-to-end tests
	tests/cluster/cluster deps
	$(MAKE) lint
	$(MAKE) crds-current
	$(MAKE) unit
	$(MAKE) e2e

.PHONY: unit
unit: ## unit and contract tests
	cargo test $(CARGO_FLAGS) --workspace --exclude lambent-tests

.PHONY: e2e
e2e: ## end-to-end tests, on LAMBENT_TEST_KUBECONFIG, REGISTRY and GATEWAY if set, else on the test cluster
	tests/cluster/with cargo test $(CARGO_FLAGS) $$(tests/cluster/cluster packages) --lib --bin bench --bin soak --test e2e

.PHONY: dist
dist: ## the binary that ships; prints its path
	@deploy/dist build

.PHONY: profile
profile: ## what it is laid out by, deploy/lambent.profdata, made anew
	@deploy/dist profile

.PHONY: bench
bench: ## the scoreboard, into docs/benchmarks.md; parts of it: make bench ONLY=warm,cold QUICK=1
	tests/bench/deps
	cargo build $(CARGO_FLAGS) $$(tests/cluster/cluster packages) --bin bench
	export LAMBENT_BINARY=$${LAMBENT_BINARY:-$$(deploy/dist build)}; \
	bench=$(CARGO_TARGET_DIR)/x86_64-unknown-linux-musl/release/bench; \
	if $$bench needs-cluster; then tests/cluster/with $$bench; else $$bench; fi

.PHONY: soak
soak: ## load while faults come at random times: make soak [MINUTES=10] [SEED=n] [FAULTS=functions]
	cargo build $(CARGO_FLAGS) $$(tests/cluster/cluster packages) --bin lambent --bin soak
	tests/cluster/with $(CARGO_TARGET_DIR)/x86_64-unknown-linux-musl/release/soak

.PHONY: lint
lint: ## format and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: crds
crds: ## write the generated CRDs anew
	cargo run -q $(CARGO_FLAGS) -p lambent -- crds >$(CRDS).new
	mv $(CRDS).new $(CRDS)
	mkdir -p $(CHART_CRDS)
	cp $(CRDS) $(CHART_CRDS)/crds.yaml

.PHONY: crds-current
crds-current: # the generated files are those that 'make crds' would write
	cargo run -q $(CARGO_FLAGS) -p lambent -- crds | diff -u $(CRDS) - || { echo 'run: make crds' >&2; exit 1; }
	cmp $(CRDS) $(CHART_CRDS)/crds.yaml || { echo 'run: make crds' >&2; exit 1; }
