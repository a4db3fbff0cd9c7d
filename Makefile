# Targets for people. `make run` and `make test` are the two commands of the README.

SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unversioned)
LDFLAGS := -s -w -X main.release=$(VERSION)
export CGO_ENABLED ?= 0

# The packages whose concurrency matters most run under the race detector on every test.
RACED := ./store/... ./enclave/... ./identity/... ./s3/... ./carry/... ./replica/... ./node/... ./compute ./guard ./registry

.PHONY: run build dist test check vet unit fips race clients sim soak fuzz ztdf kube systemd media cgroups nightly bench bench-link bench-link-full bench-filters bench-carry bench-lan bench-raise bench-timing bench-jobs model model-quick clean deps help

run: build ## build, and bring up the example estate in ./.redoubt
	./redoubt up

help: ## these targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | expand -t 17

BINARY := redoubt
build: ## one static binary, ./redoubt; what runs modules is built first, and into it
	$(GO) build -trimpath -ldflags '-s -w' -o workers/redoubt-worker ./cmd/redoubt-worker
	$(GO) build -trimpath -tags slim -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/redoubt

dist: ## static binaries for amd64 and arm64
	for arch in amd64 arm64; do \
	  GOOS=linux GOARCH=$$arch $(MAKE) build BINARY=dist/redoubt-linux-$$arch || exit 1; done

test: deps check model-quick fips race clients ## everything that must hold before a commit lands

deps: ## what the tests need from Debian and npm; asks nothing of a machine that has it
	scripts/deps

check: vet ## formatting, vet, and the size of the trusted base
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt: "; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@if command -v shellcheck >/dev/null; then shellcheck $$(grep -rlE '^#!.*(bash|/sh)' .ci scripts --exclude-dir=node_modules); fi
	@scripts/trusted-lines

vet: ## what go vet finds
	$(GO) vet ./...

unit: ## the tests alone, quickly
	$(GO) test ./...

fips: ## the whole suite with the FIPS 140-3 module enforced; of the store's searches over crash points, the short form
	GODEBUG=fips140=only $(GO) test -timeout 22m ./redoubttest $$($(GO) list ./... | grep -v -e /store/embedded -e /redoubttest) # the longest first
	GODEBUG=fips140=only $(GO) test -short -timeout 15m ./store/embedded

race: ## the concurrent packages under the race detector
	CGO_ENABLED=1 $(GO) test -race -short -timeout 15m $(RACED)

clients: build ## aws-cli, boto3, rclone, s3cmd and the JavaScript SDK against a running estate
	scripts/clients

ztdf: ## files for partners: OpenTDF's Go SDK opens ours and we open its (a module of its own; fetches the SDK)
	cd test/ztdf && $(GO) vet ./... && $(GO) test ./... && GODEBUG=fips140=only $(GO) test ./...

cosign: ## images signed and verified by cosign itself in an enclave's registry, and held to a policy (a module of its own; builds cosign from the module proxy)
	cd test/cosign && $(GO) vet ./... && $(GO) test ./...

kube: KUBE_DIR ?= $(HOME)/.cache/redoubt-kube
kube: ## jobs and services on a real Kubernetes: builds it from the module proxy (ten minutes once), runs it in namespaces of its own and the contract suites on it, with runc and with gVisor (needs root)
	cd test/kube && $(GO) vet ./... && ./run $(KUBE_DIR) -test.v

media: ## ffmpeg and ImageMagick at work on real files, in the userland of a Debian that it makes (needs root; fetches 400 MB; three minutes)
	CGO_ENABLED=0 MEDIA=1 CLIENTS_REQUIRE=1 $(GO) test ./compute/oci -count=1 -run TestFFmpegWorks -v

systemd: build ## the unit of contrib/ under a systemd of its own: a node starts, finds its walls and runs a job (needs root)
	scripts/systemd

cgroups: ## jobs in images under control groups of version 2, in a virtual machine that is made for it (needs root; fetches a kernel of Debian's; ten minutes)
	scripts/cgroup2

model: ## the models of raise and release, every state within their bounds, and the faults that are planted in them (ten minutes)
	scripts/model

model-quick: ## the same faults, and smaller bounds
	scripts/model quick

sim: FROM ?= 1
sim: ## fleets of 200 devices in fake time, seed after seed from FROM on for ten minutes; prints the simulated years that a minute buys
	$(GO) test ./sim -run TestFleet -timeout 30m -args -sim.for 10m -sim.devices 200 -sim.steps 3000 -sim.from $(FROM)

soak: build ## crash loops for an hour: kill -9 and lost unsynced data, checked after each
	$(GO) test -run Soak -timeout 3h ./redoubttest -args -soak 1h

fuzz: ## every fuzz target for a minute
	scripts/fuzz 60s

nightly: ## the whole suite under FIPS and under the race detector, then fuzzing
	GODEBUG=fips140=only $(GO) test -timeout 90m ./...
	CGO_ENABLED=1 $(GO) test -race -timeout 90m ./...
	scripts/fuzz 5m

bench: build ## our server and its peers in one run, with ratios
	scripts/bench

bench-link: build ## a home and its device over emulated links B and C, against each link's floor, and rsync and git on B (needs root; about 25 minutes)
	scripts/bench-link

bench-link-full: build ## the same, and the peers on C, each load stopped at 900 s (needs root; about 40 minutes)
	FULL=1 scripts/bench-link

bench-filters: ## both filters of a type and the search for words, processes waiting and not, and the search by itself (two cores to itself; about a minute)
	$(GO) test -run '^$$' -bench Pipeline -benchtime 5s ./guard/filter
	$(GO) test -run '^$$' -bench Search ./guard

bench-carry: ## carriage alone over emulated links, against each link's floor (needs root; about 20 minutes)
	CARRY=1 scripts/bench-link

bench-lan: build ## what a device takes over a fast link, against what its store takes from clients (two cores to itself; about 3 minutes)
	$(GO) run ./cmd/redoubt-bench -redoubt ./redoubt -lan

bench-raise: build ## what a guard raises into a higher enclave, while it is put and catching up, against what the lower store takes from clients (about 6 minutes)
	$(GO) run ./cmd/redoubt-bench -redoubt ./redoubt -raise

bench-timing: build ## how well a low listener can tell by latency what goes on above; three minutes, on a quiet machine
	$(GO) run ./cmd/redoubt-bench -redoubt ./redoubt -timing

bench-jobs: build ## calls of a service, how soon jobs start, how many a second run, S3 beside them, what they read and write, and images beside podman (needs root for that; four minutes; ONLY=calls,starts,queue,streams for some, without images)
	$(GO) run ./cmd/redoubt-bench -redoubt ./redoubt -jobs -only '$(ONLY)'
	[ -n '$(ONLY)' ] || $(GO) run ./cmd/redoubt-bench -redoubt ./redoubt -containers

clean: ## remove what the builds made
	rm -rf redoubt dist workers/redoubt-worker
