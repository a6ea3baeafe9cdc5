# Each target does all of its own set-up: scripts/setup installs what is missing, or names the command that does.
# Settings: UP="--data DIR …" are handed to `insula up`.

CARGO ?= cargo
UP ?=

.PHONY: up test bench dist lint fmt openapi console

## Builds everything and runs it on this machine, with four demo tenants.
up: setup-run
	$(CARGO) build --release --locked -p insula-cli -p acmedocs
	@scripts/server-module target/release >/dev/null || echo "Going on without the server module: transactions cost a little more."
	target/release/insula up $(UP)

## All tests, against real servers that they start and stop themselves. Fuzz targets are checked, not linked: that needs neither C++ nor a nightly compiler.
test: setup-test
	$(CARGO) build --locked --workspace
	$(CARGO) test --locked --workspace --no-fail-fast
	$(CARGO) test --locked -p insula --all-features --test it
	CUSTOM_LIBFUZZER_PATH=$(CURDIR)/target/libfuzzer.a $(CARGO) check --locked --manifest-path fuzz/Cargo.toml --target-dir target
	module="$$(scripts/server-module)" && INSULA_SERVER_MODULE="$$module" \
		$(CARGO) test --locked -p insula-kit -p insula-data -p insula-e2e --test it --test attacks

## Prints ratios measured in one run and writes bench/RESULTS.md.
bench: setup-test
	scripts/dist
	mkdir -p target/peers && cp bench/peers/* target/peers/ && cd target/peers && npm install --silent --no-fund --no-audit
	INSULA_BENCH_QUEUE="$(CURDIR)/target/peers" target/dist/insula-bench all

## Builds what is shipped into target/dist, with the server module beside it.
dist: setup-run
	scripts/dist
	scripts/server-module target/dist

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

fmt:
	$(CARGO) fmt --all

## Writes the REST API's description; a test compares it with the code.
openapi:
	$(CARGO) run --locked -p insula-cli -- openapi > openapi/insula.json.new
	mv openapi/insula.json.new openapi/insula.json

## Builds the web console into the folder that the control plane embeds; commit what changes there.
console: setup-test
	cd console && npm ci --silent --no-fund --no-audit && npm run --silent build

.PHONY: setup-run setup-test
setup-run:
	@scripts/setup
setup-test:
	@scripts/setup test
