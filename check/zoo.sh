#!/usr/bin/env bash
# Which wrong variants of lameduck real sockets can see: builds each, grades it, and prints a table.
#   check/zoo.sh                     all variants of sim/zoo
#   check/zoo.sh nobody-lingers …    some of them
# Needs a clean `src`, which is patched and restored. A debug build each: an hour or two for all.
set -euo pipefail
cd "$(dirname "$0")/.."
git diff --quiet HEAD -- src || { echo "src has changes" >&2; exit 1; }
names=("$@")
((${#names[@]})) || for patch in sim/zoo/*.patch; do names+=("$(basename "$patch" .patch)"); done
folder=target/conformance/zoo
mkdir -p "$folder"
restore() { git checkout -q HEAD -- src; }
trap restore EXIT

build() {
    cargo build --quiet -p lameduck-service -p lameduck-check
}

grade() {
    target/debug/lameduck-check run --grace 15s --repeat 3 --format json --ws /upgrade --lame-duck 1s \
        --ready 'http://127.0.0.1:{port2}/readiness' --live 'http://127.0.0.1:{port2}/liveness' -- \
        "$1" --drill --addr '127.0.0.1:{port}' --internal-addr '127.0.0.1:{port2}' \
        --lame-duck 1s --drain 5s --cancel 1s --cleanup 1s --grace-period 15s >"$1.json" || true
}

echo "building ${#names[@]} variants" >&2
for name in "${names[@]}"; do
    [ -e "$folder/$name" ] && continue
    git apply "sim/zoo/$name.patch"
    build && cp target/debug/lameduck "$folder/$name" || echo "$name does not build" >&2
    restore
done
build
cp target/debug/lameduck "$folder/unchanged"

echo '| variant | scenarios that fail |'
echo '|---|---|'
for name in unchanged "${names[@]}"; do
    [ -e "$folder/$name" ] || continue
    grade "$folder/$name"
    python3 - "$name" "$folder/$name.json" <<'PY'
import json, sys
name, file = sys.argv[1:]
try:
    scenarios = json.load(open(file))["scenarios"]
except ValueError:
    sys.exit(print(f"| `{name}` | it cannot be graded |"))
failed = [f"`{s['name']}` {s['failures']} of {s['tries']}" for s in scenarios if s["verdict"] == "fail"]
print(f"| `{name}` | {', '.join(failed) or 'none'} |", flush=True)
PY
done
