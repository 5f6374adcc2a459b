# One door to everything: `make` lists what there is. Every step says what it does and how long it took.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

STEP := .ci/step
CARGO := cargo --locked
HARNESS := $(CARGO) build --quiet --workspace --bins && target/debug/slipway-e2e
export SLIPWAY_E2E_NAME ?= slipway

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## Roll models out and back on a real cluster under load (KEEP=1 leaves the cluster up, RATE=200 requests/s, CONTEXT=name)
	@.ci/demo

.PHONY: down
down: ## Take the cluster down and leave nothing of it
	@$(HARNESS) down

.PHONY: test
test: check deny clients e2e ## Everything: check, deny, clients, e2e. What continuous integration runs

.PHONY: check
check: setup ## The fast part, without a cluster: format, lints, all tests of the workspace, generated files
	@$(STEP) 'format' cargo fmt --all --check
	@$(STEP) 'lints' $(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	@$(STEP) 'tests of the workspace, generated files' $(CARGO) test --workspace

.PHONY: setup
setup: ## Install what the build needs and this machine lacks
	@$(STEP) 'what the build needs' .ci/setup

.PHONY: clients
clients: setup ## The public Python clients (tritonclient, kserve), unmodified, against our model server
	@$(STEP) 'build programs' $(CARGO) build --quiet --workspace --bins
	@serving-runtime/fetch-onnxruntime.sh target
	@$(STEP) 'tritonclient and kserve, unmodified' serving-runtime/tests/clients/run.sh target/debug/slipway-runtime \
	  target/onnxruntime-1.32.0/libonnxruntime.so target

.PHONY: deny
deny: ## Licences, duplicate versions and origins of the dependencies
	@$(STEP) 'dependencies' .ci/deny

.PHONY: sim
sim: ## Whole rollouts with faults in the simulator
	@$(STEP) 'simulator' $(CARGO) test --package slipway-core --package slipway-sim

.PHONY: e2e
e2e: ## Charts, apiserver, and every promise on a real cluster (T=name for some, KEEP=1, TEST_THREADS=4, CONTEXT=name)
	@.ci/e2e $(T)

.PHONY: apiserver
apiserver: ## The operator against a real kube-apiserver and etcd, which `make up` builds
	@$(STEP) 'operator against a real apiserver' $(CARGO) test --workspace --test apiserver -- --ignored

.PHONY: up
up: ## Bring the cluster up
	@$(STEP) 'cluster up' bash -c '$(HARNESS) up'

.PHONY: images
images: ## Build the images, and import them when the cluster is up
	@$(STEP) 'build images' bash -c '$(HARNESS) images --no-cargo'

.PHONY: crds
crds: ## Write the generated CRDs again (crds/*.yaml and charts/slipway-crds/files)
	@$(STEP) 'generate the CRDs' bash -c '$(CARGO) run --quiet --package slipway-crds --bin crdgen >target/crds.yaml && \
	  cp target/crds.yaml crds/modeldeployments.yaml && mv target/crds.yaml charts/slipway-crds/files/modeldeployments.yaml'
	@git --no-pager diff --stat -- crds charts/slipway-crds/files

.PHONY: charts
charts: ## Lint and render the charts, compare with golden files, run alert rules and Argo CD scripts
	@$(STEP) 'charts' charts/tests/run.sh

.PHONY: bench
bench: setup ## Model server and gateway beside others, in one run (BENCH='--only slipway,fastapi --rounds 1'); writes docs/bench
	@$(STEP) 'build' bash -c '$(CARGO) build --quiet --release --package slipway-runtime --package slipway-gateway --package slipway-bench \
	  --bins --example hop && serving-runtime/fetch-onnxruntime.sh target'
	@$(STEP) 'model servers' target/release/slipway-bench runtime $(BENCH)
	@$(STEP) 'gateways' target/release/slipway-bench gateway $(BENCH)
	@$(STEP) 'jobs' target/release/slipway-bench jobs $(BENCH)
	@$(STEP) 'conformance of others' target/release/slipway-bench conformance $(BENCH)
	@$(STEP) 'report' target/release/slipway-bench report

.PHONY: fuzz
fuzz: setup ## Fuzz the decoders (EACH=600 seconds for each of six targets), and keep what was found in fuzz/corpus
	@$(STEP) 'fuzz' fuzz/run.sh $(or $(EACH),600)
