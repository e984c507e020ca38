# Each recipe is a plain cargo command, which also works without just. `just --list` prints the
# last line of each comment.

# Lists the recipes.
default:
    @just --list

# First everything, then the library with only the features that its tests need: a workspace build
# unifies all. `cargo clippy -p lameduck` builds it without any.
# All tests: the core, real sockets, real processes, the simulation.
test:
    cargo test --workspace
    cargo test -p lameduck

# A template of a service, services with one downstream each, a shop with planted shutdown bugs,
# and telemetry.
# The packages in examples/ that have separate lock files.
examples:
    cargo test --manifest-path examples/service/Cargo.toml --target-dir target
    cargo test --workspace --manifest-path examples/shop/Cargo.toml --target-dir target
    cargo test --manifest-path examples/telemetry/Cargo.toml --target-dir target

# What CI checks before the tests: format, lints, documents, dependencies.
check:
    cargo fmt --all --check
    cargo fmt --all --check --manifest-path benches/peers/Cargo.toml
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p lameduck -- -D warnings
    cargo clippy -p lameduck --features metrics -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The reference service, with its drill routes: `just run --lame-duck 1s`.
run *args:
    cargo run --release -- --drill {{args}}

# `just sim --time 10m`; `just sim --network linux --seeds 0..1000` on real sockets.
# Explores: scenarios drawn from seeds, judged by every promise: `just sim --seeds 0..5000`.
sim *args:
    cargo run --release -p lameduck-sim -- {{args}}

# In a new directory each time: cargo caches the unpacked source of a version by the path of its
# directory, and would build `lameduck-sim` with the `lameduck` of the last time.
# Whether the three published crates build as users get them.
publish-check:
    cargo publish --dry-run --target-dir "$(mktemp -d)" -p lameduck -p lameduck-wire -p lameduck-sim

# The simulation's named scenarios.
scenarios *args:
    cargo test --release --test simulation {{args}}

# `benches/README.md` lists what it needs. `just bench --json bench.json --plot docs/peers.svg`.
# lameduck compared with other servers, each on one core: `just bench --quick`.
bench *args:
    cargo build --release --manifest-path benches/peers/Cargo.toml
    cargo build --release --manifest-path benches/peers/secure/Cargo.toml
    cargo run --release --manifest-path benches/peers/Cargo.toml --bin bench -- {{args}}

# `just cost --check` is CI's check against the baseline, which `just cost --save` replaces.
# Instructions per request of each kind, and bytes per idle connection; needs valgrind.
cost *args:
    cargo run --release -p lameduck-cost -- {{args}}

# The cost of the core's transitions and of the guard of a request, by divan.
micro *args:
    cargo bench --manifest-path benches/peers/Cargo.toml --bench lifecycle --bench request -- {{args}}

# `just grade --strict --evidence evidence`.
# What the shutdown of the real binary loses, seen from outside.
grade *args:
    cargo build --release --bin lameduck
    cargo run --release -p lameduck-check -- run --ready 'http://127.0.0.1:{port2}/readiness' --live 'http://127.0.0.1:{port2}/liveness' --ws /upgrade {{args}} -- \
        target/release/lameduck --drill --addr '127.0.0.1:{port}' --internal-addr '127.0.0.1:{port2}'

# `check/servers/README.md` lists what to install; a server that is missing is listed as not graded.
# One server: `just conformance --server nginx`. More repetitions: `just conformance -- --repeat 20`.
# The shutdown of other servers, each with its best settings: writes `docs/conformance.md`.
conformance *args:
    cargo run --release -p lameduck-check -- compare check/servers/servers.json --page docs/conformance.md {{args}}

# The real binary restarted under constant load: `just soak --restarts 200 --latency 10ms`.
soak *args:
    cargo build --release --bin lameduck
    cargo run --release -p lameduck-check -- soak --ready 'http://127.0.0.1:{port2}/readiness' {{args}} -- \
        target/release/lameduck --drill --lame-duck 300ms --addr '127.0.0.1:{port}' --internal-addr '127.0.0.1:{port2}'

# `just rollout --restarts 50 --behind nginx`.
# Rolling restarts behind HAProxy and nginx (Debian's packages).
rollout *args:
    cargo build --release --bin lameduck
    cargo run --release -p lameduck-check -- rollout --ready 'http://127.0.0.1:{port2}/readiness' {{args}} -- \
        target/release/lameduck --drill --workers 1 --lame-duck 500ms --addr '127.0.0.1:{port}' --internal-addr '127.0.0.1:{port2}'

# The fuzzed bodies with a fuzzer (needs cargo-fuzz and a nightly toolchain): `just fuzz http1`.
fuzz target:
    cargo fuzz run --fuzz-dir fuzz/targets {{target}} fuzz/corpus/{{target}}

# What axum::serve, hyper-util and lameduck lose in a deploy, as a table: `just servers 200`.
servers *args:
    cargo run --release -p lameduck-sim --example servers -- {{args}}

# `just advise --platform kubernetes --propagation 3s --svg curve.svg`.
# The shortest lame duck delay that loses nothing.
advise *args:
    cargo run --release -p lameduck-sim -- advise {{args}}

# The bug zoo: wrong variants of the host, each of which exploration must find.
zoo *args:
    cargo run --release -p lameduck-sim -- zoo {{args}}

# `just mutants --sample 60 --seed 7`; needs cargo-mutants. What survives is in `mutants.out`.
# Mutants of the library, drawn by a seed, each of which the fast tests must find.
mutants *args:
    .ci/mutants {{args}}

# `just well-behaved 0..500` takes some minutes.
# Services of users in which the simulation must find nothing.
well-behaved seeds="0..500":
    LAMEDUCK_SEEDS={{seeds}} cargo test --release -p lameduck-sim --test harness well_behaved

# `just timeline service.log --svg shutdown.svg`.
# A real process's shutdown as a picture, from its JSON log.
timeline log *args:
    cargo run --release -p lameduck-sim -- --log {{log}} {{args}}

# Opens the documentation of the crates.
doc:
    cargo doc --workspace --no-deps --open

# Licences and advisories of all dependencies (needs cargo-deny).
deny:
    cargo deny check
