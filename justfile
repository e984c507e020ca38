# The one door. Each recipe is a plain cargo command that works without just, too.

# What there is.
default:
    @just --list

# All tests: the core, real sockets, the simulation. Then the library without its features, which a workspace build unifies.
test:
    cargo test --workspace
    cargo test -p lameduck

# The packages in examples/ that have lock files of their own: a template of a service, a shop with a database, a payment service and
# a queue, whose shutdown is tested with planted bugs, and telemetry.
examples:
    cargo test --manifest-path examples/service/Cargo.toml --target-dir target
    cargo test --manifest-path examples/shop/Cargo.toml --target-dir target
    cargo test --manifest-path examples/telemetry/Cargo.toml --target-dir target

# What CI checks before the tests: format, lints, documents, dependencies.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p lameduck -- -D warnings
    cargo clippy -p lameduck --features metrics -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The reference service, with its drill routes: `just run --lame-duck 1s`.
run *args:
    cargo run --release -- --drill {{args}}

# Explores: scenarios drawn from seeds, held against every promise. `just sim --seeds 0..5000`, `just sim --time 10m`,
# `just sim --network linux --seeds 0..1000` on real sockets.
sim *args:
    cargo run --release -p lameduck-sim -- {{args}}

# Whether the three published crates build as users get them. In a directory of its own each time: cargo keeps the unpacked source
# of a version by the path of its directory, and would build `lameduck-sim` with the `lameduck` of the last time.
publish-check:
    cargo publish --dry-run --target-dir "$(mktemp -d)" -p lameduck -p lameduck-wire -p lameduck-sim

# The simulation's named scenarios.
scenarios *args:
    cargo test --release --test simulation {{args}}

# lameduck beside its peers, each on one core (`benches/README.md` says what it needs): `just bench --quick`,
# `just bench --json bench.json --plot docs/peers.svg`.
bench *args:
    cargo build --release --manifest-path benches/peers/Cargo.toml
    cargo run --release --manifest-path benches/peers/Cargo.toml --bin bench -- {{args}}

# Instructions a request of each kind, and bytes an idle connection; needs valgrind. `just cost --check` is CI's check against the
# baseline, `just cost --save` replaces that.
cost *args:
    cargo run --release -p lameduck-cost -- {{args}}

# What the core's transitions and the guard of a request cost, by divan.
micro *args:
    cargo bench --manifest-path benches/peers/Cargo.toml --bench lifecycle --bench request -- {{args}}

# What the shutdown of the real binary loses, seen from outside: `just grade --strict --evidence evidence`.
grade *args:
    cargo build --release --bin lameduck
    cargo run --release -p lameduck-check -- run --ready 'http://127.0.0.1:{port2}/readiness' --ws /upgrade {{args}} -- \
        target/release/lameduck --drill --addr '127.0.0.1:{port}' --internal-addr '127.0.0.1:{port2}'

# The shutdown of other servers, each with its best settings: `docs/conformance.md`. `check/servers/README.md` says what to install;
# what is missing is listed as not graded. One server: `just conformance --server nginx`, more repetitions: `just conformance -- --repeat 20`.
conformance *args:
    cargo run --release -p lameduck-check -- compare check/servers/servers.json --page docs/conformance.md {{args}}

# The real binary restarted under constant load: `just soak --restarts 200 --latency 10ms`.
soak *args:
    cargo build --release --bin lameduck
    cargo run --release -p lameduck-check -- soak --ready 'http://127.0.0.1:{port2}/readiness' {{args}} -- \
        target/release/lameduck --drill --lame-duck 300ms --addr '127.0.0.1:{port}' --internal-addr '127.0.0.1:{port2}'

# Rolling restarts behind HAProxy and nginx (Debian's packages): `just rollout --restarts 50 --behind nginx`.
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

# The shortest lame duck delay that loses nothing: `just advise --platform kubernetes --propagation 3s --svg curve.svg`.
advise *args:
    cargo run --release -p lameduck-sim -- advise {{args}}

# The bug zoo: wrong variants of the host, each of which exploration must find.
zoo *args:
    cargo run --release -p lameduck-sim -- zoo {{args}}

# A real process's shutdown as a picture, from its JSON log: `just timeline service.log --svg shutdown.svg`.
timeline log *args:
    cargo run --release -p lameduck-sim -- --log {{log}} {{args}}

# The documents, opened.
doc:
    cargo doc --workspace --no-deps --open

# Licences and advisories of all dependencies (needs cargo-deny).
deny:
    cargo deny check
