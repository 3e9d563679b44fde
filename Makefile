# `make help` lists what there is. Every target installs what it needs first (see .ci/tools).

CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)

# Crates that come in more than one version through our dependencies. A new one has to be looked at: raise the number or avoid it.
DUPLICATES_MAX = 11

.DEFAULT_GOAL := help
.PHONY: help demo test bench pgo soak fuzz lint tools

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools ## Watch a rollout go wrong and the gate take it back (FAULT=none, errors, latency, hang or crash)
	$(CARGO) run -- demo$(if $(FAULT), --fault $(FAULT))

test: tools ## Run every test
	@.ci/tools grpc schemathesis strace
	$(CARGO) test

bench: tools ## Run the micro-benchmarks, the tails of the balances, how the gate judges beside others, what probing costs, then Tidegate beside other proxies (PEERS="--only small --peers haproxy": a part of it)
	@.ci/tools peers
	$(CARGO) bench --bench balance
	$(CARGO) bench --bench canary
	$(CARGO) bench --bench judgement
	$(CARGO) bench --bench micro
	$(CARGO) bench --bench policy
	$(CARGO) build --release
	$(CARGO) bench --bench probing -- --tidegate $(TARGET)/release/tidegate
	$(CARGO) test --manifest-path benches/peers/Cargo.toml --target-dir $(TARGET)/peers --lib --bin peers
	$(CARGO) build --release --manifest-path benches/peers/Cargo.toml --target-dir $(TARGET)/peers
	$(TARGET)/peers/release/peers --tidegate $(TARGET)/release/tidegate --tools $(TARGET)/tools \
		--command 'make bench$(if $(PEERS), PEERS="$(PEERS)")' $(PEERS)

# The loads the profile is taken from, each for a few seconds.
PGO_LOADS = small,returning,logged,middle,large,upload,tls,close,thousand,h2,h2c,grpc
PGO = $(TARGET)/pgo

pgo: tools ## Build a release tuned by the loads of the bench: target/pgo/release/tidegate
	@.ci/tools peers pgo
	$(CARGO) build --release --manifest-path benches/peers/Cargo.toml --target-dir $(TARGET)/peers
	RUSTFLAGS='-Cprofile-generate=$(abspath $(PGO))/profile' $(CARGO) build --release --target-dir $(PGO)/train
	rm -rf $(PGO)/profile
	$(TARGET)/peers/release/peers --tidegate $(PGO)/train/release/tidegate --tools $(TARGET)/tools \
		--peers tidegate --only $(PGO_LOADS) --pairs 1 --seconds 2 --no-strace --print-only
	"$$(find "$$(rustc --print sysroot)" -name llvm-profdata -type f | head -n 1)" merge -o $(PGO)/profile.profdata $(PGO)/profile
	RUSTFLAGS='-Cprofile-use=$(abspath $(PGO))/profile.profdata' $(CARGO) build --release --target-dir $(PGO)

soak: tools ## Run the long versions of the integration tests, optimised
	@.ci/tools grpc schemathesis strace
	TIDEGATE_SOAK=1 $(CARGO) test --release --test it -- --test-threads=1

# Seconds for each fuzzer, and which of them.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard tests/fuzz/targets/*.rs)))
# Largest input (configurations are longer than messages need to be) and most memory: bytes, and MiB with the sanitiser's own.
FUZZ_INPUT_MAX = 4096
FUZZ_CONFIG_MAX = 16384
FUZZ_MEMORY_MAX = 2048
# The inputs found are build output; those worth keeping are in tests/fuzz/corpus and tests/fuzz/regressions.
FUZZ_FOUND = tests/fuzz/target/found

fuzz: ## Run every fuzzer for FUZZ_SECONDS (default 60); FUZZ_TARGETS names fewer
	@.ci/tools build fuzz
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		longest=$(FUZZ_INPUT_MAX); [ $$target != config ] || longest=$(FUZZ_CONFIG_MAX); \
		mkdir -p $(FUZZ_FOUND)/$$target tests/fuzz/regressions/$$target; \
		RUSTC_BOOTSTRAP=1 nice -n 10 $(CARGO) fuzz run --fuzz-dir tests/fuzz $$target $(FUZZ_FOUND)/$$target \
			tests/fuzz/corpus/$$target tests/fuzz/regressions/$$target -- -dict=tests/fuzz/http.dict -max_total_time=$(FUZZ_SECONDS) \
			-max_len=$$longest -rss_limit_mb=$(FUZZ_MEMORY_MAX) -timeout=10 -print_final_stats=1 -verbosity=0 || exit 1; \
	done

lint: tools ## Check format, lints, documentation and duplicate dependencies
	@.ci/tools lint
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path benches/peers/Cargo.toml
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps
	@tree=$$($(CARGO) tree --duplicates --depth 0 --edges normal --prefix none) || exit 1; \
	names=$$(printf '%s\n' "$$tree" | awk 'NF && !seen[$$1 $$2]++ { n[$$1]++ } END { for (c in n) if (n[c] > 1) print c }' | sort); \
	count=$$(printf '%s\n' "$$names" | grep -c . || true); \
	echo "crates in several versions: $$count (at most $(DUPLICATES_MAX)):" $$names; \
	test "$$count" -le $(DUPLICATES_MAX)

tools:
	@.ci/tools build
