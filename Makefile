.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: build
build: ## build bin/millrace
	go build -o bin/millrace ./cmd/millrace

.PHONY: run
run: ## start a broker on this machine's usual ports
	go run ./cmd/millrace serve

.PHONY: test
test: ## what the README's test command runs: Go alone
	go test ./...

.PHONY: race
race: ## the tests under the race detector, with the invariants checked
	go test -race -short -tags invariants ./...

.PHONY: lint
lint: ## the linter, at the pinned version
	.ci/lint

.PHONY: compat
compat: ## the official clients in their own languages, kills, hostile peers
	cd compat && go test -timeout 40m ./...

.PHONY: check
check: ## everything that must pass before a change lands
	.ci/run

.PHONY: bench
bench: ## Go benchmarks of the hot paths, with their allocations
	go test -run '^$$' -bench . -benchmem ./store/segment ./amqp/... ./event ./capture/...

.PHONY: goals
goals: ## the goals for speed, interleaved with their floors
	cd compat && go run ./load/cmd/goals

.PHONY: soak
soak: ## ten minutes of fuzzing for each decoder; thousands of crashes; races and retention; throughput units by the clock
	.ci/fuzz 10m
	go test -timeout 60m -run Crash ./store/segment -crash-seeds 5000
	cd compat && go test -timeout 60m -run 'Races|RetentionUnderLoad' . -races 1000 -retention-soak 10m
	cd compat && go test -timeout 60m -run Accuracy . -accuracy 60s
