#!/usr/bin/env bash
# Which wrong variants of lameduck real sockets can see: builds each, grades it, and prints a table.
#   check/zoo.sh                     all variants of sim/zoo
#   check/zoo.sh no-connection-lingers …    some of them
# Needs a clean `src`, which is patched and restored. What was built or graded before is not built
# or graded again: remove target/conformance/zoo to begin anew. Two hours for all.
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
    cargo build --quiet -p lameduck-service -p lameduck-check && cp target/debug/lameduck "$1"
}

# grade BINARY RESULT OPTIONS OF THE CHECK… -- OPTIONS OF THE SERVER…
grade() {
    local binary=$1 result=$2 options=()
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    [ -e "$result" ] || target/debug/lameduck-check run --grace 15s --repeat 2 --format json \
        --lame-duck 1s "${options[@]}" -- "$binary" --drill --addr '127.0.0.1:{port}' \
        --internal-addr '127.0.0.1:{port2}' --lame-duck 1s --drain 5s --cancel 1s --cleanup 1s \
        --grace-period 15s "${@:2}" >"$result" || true
}

echo "building ${#names[@]} variants" >&2
[ -e "$folder/unchanged" ] || build "$folder/unchanged"
for name in "${names[@]}"; do
    [ -e "$folder/$name" ] && continue
    git apply "sim/zoo/$name.patch"
    build "$folder/$name" || echo "$name does not build" >&2
    restore
done

certificate=("$folder/cert.pem" "$folder/key.pem")
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
    -out "${certificate[0]}" -keyout "${certificate[1]}" 2>/dev/null
echo '| variant | scenarios that fail |'
echo '|---|---|'
for name in unchanged "${names[@]}"; do
    variant=$folder/$name
    [ -e "$variant" ] || continue
    grade "$variant" "$variant.json" --ws /upgrade --ready 'http://127.0.0.1:{port2}/readiness' \
        --live 'http://127.0.0.1:{port2}/liveness' --
    grade "$variant" "$variant.tls.json" --tls -- --tls-cert "${certificate[0]}" \
        --tls-key "${certificate[1]}"
    python3 - "$name" "$variant.json" "$variant.tls.json" <<'PY'
import json, sys
name, *files = sys.argv[1:]
try:
    scenarios = [s for file in files for s in json.load(open(file))["scenarios"]]
except ValueError:
    sys.exit(print(f"| `{name}` | it cannot be graded |"))
failed = [f"`{s['name']}` {s['failures']} of {s['tries']}" for s in scenarios if s["verdict"] == "fail"]
print(f"| `{name}` | {', '.join(failed) or 'none'} |", flush=True)
PY
done
