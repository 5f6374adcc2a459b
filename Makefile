# One door to everything: `make` lists what there is. Every step says what it does, how long it takes and took.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

XTASK := scripts/xtask
STEP := scripts/step
CARGO := cargo --locked

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## Roll models out and back on a real cluster under load (KEEP=1 leaves the cluster up, RATE=200 requests/s, CONTEXT=name, CLUSTER=kind|build)
	@$(XTASK) demo

.PHONY: down
down: ## Take the cluster down and leave nothing of it
	@scripts/down

.PHONY: test
test: ## Everything, in tiers: check, promises on a real cluster, groups with others' servers (ALL=1 leaves nothing out, TEST_BUDGET_MINUTES)
	@$(XTASK) test $(if $(ALL),--all)

.PHONY: setup
setup: ## Install the packages that build, tests and cluster need (apt-get, with root's rights), and offer the git hook (HOOKS=1 sets it)
	@$(XTASK) setup

.PHONY: check
check: ## The fast part, without a cluster: format, lints, dependencies, all tests of the workspace, generated files, charts, workflows
	@$(XTASK) check

.PHONY: clients
clients: ## The public Python clients (tritonclient, kserve), unmodified, against our model server with the feature model-repository
	@$(XTASK) e2e --group clients

.PHONY: deny
deny: ## Licences, duplicate versions and origins of the dependencies
	@$(STEP) 'dependencies' scripts/deny

.PHONY: advisories
advisories: ## Known vulnerabilities of the dependencies; needs the internet, and fails where their database cannot be reached
	@$(STEP) 'advisories' scripts/deny --advisories

.PHONY: sim
sim: ## Whole rollouts with faults in the simulator
	@$(STEP) 'simulator' $(CARGO) test --package slipway-core --package slipway-judge --package slipway-objects --package slipway-sim

.PHONY: e2e
e2e: ## Charts, apiserver, and every promise on a real cluster (T=names for some, GROUP=name for a group, KEEP=1, TEST_THREADS=4, CONTEXT=name, IP_FAMILIES=ipv4|dual|dual-ipv6)
	@$(XTASK) e2e $(if $(GROUP),--group $(GROUP),$(T))

.PHONY: apiserver
apiserver: ## The operator against a real kube-apiserver and etcd
	@$(STEP) 'operator against a real apiserver' $(XTASK) apiserver

.PHONY: up
up: ## Bring the cluster up
	@$(STEP) 'cluster up' $(XTASK) up

.PHONY: images
images: ## Build the images into target/images, and import them when the cluster is up
	@$(STEP) 'build images' $(XTASK) images

.PHONY: prefetch
prefetch: ## Get everything that comes from elsewhere into the cache (SLIPWAY_CACHE), saying how long each part takes
	@$(XTASK) prefetch

.PHONY: clean-cache
clean-cache: ## Remove that cache
	@$(XTASK) clean-cache

.PHONY: crds
crds: ## Write the generated CRDs again (crds/*.yaml and charts/slipway-crds/files)
	@$(STEP) 'generate the CRDs' bash -c '$(CARGO) run --quiet --package slipway-crds --bin crdgen >target/crds.yaml && \
	  cp target/crds.yaml crds/modeldeployments.yaml && mv target/crds.yaml charts/slipway-crds/files/modeldeployments.yaml'
	@git --no-pager diff --stat -- crds charts/slipway-crds/files

.PHONY: charts
charts: ## Lint and render the charts, compare with golden files, run alert rules and Argo CD scripts
	@$(STEP) 'charts' $(XTASK) charts

.PHONY: workflows
workflows: ## Check the workflows in .github by actionlint
	@$(STEP) 'workflows' $(XTASK) workflows

.PHONY: bench
bench: ## Model server and gateway beside others, in one run (BENCH='--only slipway,fastapi --rounds 1'); writes docs/bench
	@$(STEP) 'build' $(CARGO) build --quiet --release --package slipway-runtime --package slipway-gateway --package slipway-bench \
	  --bins --example hop
	@$(STEP) 'model servers' target/release/slipway-bench runtime $(BENCH)
	@$(STEP) 'gateways' target/release/slipway-bench gateway $(BENCH)
	@$(STEP) 'jobs' target/release/slipway-bench jobs $(BENCH)
	@$(STEP) 'conformance of others' target/release/slipway-bench conformance $(BENCH)
	@$(STEP) 'report' target/release/slipway-bench report

.PHONY: fuzz
fuzz: ## Fuzz the decoders (EACH=600 seconds for each of six targets), and keep what was found in fuzz/corpus
	@$(STEP) 'fuzz' fuzz/run.sh $(or $(EACH),600)
