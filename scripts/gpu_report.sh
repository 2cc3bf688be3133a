#!/usr/bin/env bash
# Tests and measures the GPU of this machine and writes docs/measurements/DATE-DEVICE.md, with the rows of the bench as
# DATE-DEVICE.jsonl beside it. Ends non-zero, and says what is missing, where there is no card.
#   scripts/gpu_report.sh                 everything: tests, compute-sanitizer where it exists, bench; an hour or less
#   scripts/gpu_report.sh --check         says whether there is a card, or what is missing; builds, writes nothing else
#   scripts/gpu_report.sh --rehearse DIR  the same steps, short, on a software adapter; DIR gets a report that is none
# VEILSUM=PATH takes a program that is built already. A failed test or sanitizer writes no report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

out=docs/measurements
mode=measure
software=()
bench=()
case "${1:-}" in
    "") ;;
    --check) mode=check ;;
    --rehearse)
        mode=rehearse
        out=${2:?--rehearse needs a folder}
        software=(--allow-software)
        bench=(fwht --size 2^12 --seconds 0.01)
        ;;
    *)
        say "usage: scripts/gpu_report.sh [--check | --rehearse DIR]"
        exit 2
        ;;
esac
if ! command -v python3 >/dev/null; then
    say "python3 is missing: it reads the list of devices"
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

veilsum=${VEILSUM:-}
if [ -z "$veilsum" ]; then
    prepare_build
    cargo build --release --locked --bin veilsum
    veilsum=target/release/veilsum
fi

# Lines "BACKEND<tab>DEVICE<tab>DRIVER", the best device of each GPU backend; without one, why not, and status 1.
"$veilsum" devices --json "${software[@]}" >"$work/devices.json"
if ! python3 - "$work/devices.json" "$mode" >"$work/cards" <<'PY'
import json, sys
entries = [e for e in json.load(open(sys.argv[1])) if e["backend"] in ("cuda", "wgpu")]
wanted = lambda e: e["usable"] and (e["class"] == "software adapter") == (sys.argv[2] == "rehearse")
cards = {}
for e in filter(wanted, entries):
    cards.setdefault(e["backend"], e)
for backend, e in cards.items():
    print(backend, e["device"], e["driver"], sep="\t")
if not cards:
    what = "software adapter to rehearse on" if sys.argv[2] == "rehearse" else "GPU to measure"
    print("there is no %s on this machine:" % what, file=sys.stderr)
    for e in entries:
        print("  %s: %s" % (e["backend"], e["reason"] or "%s, %s" % (e["device"], e["class"])), file=sys.stderr)
    sys.exit(1)
PY
then
    exit 1
fi
cat "$work/cards" >&2
if [ "$mode" = check ]; then exit 0; fi
backends=$(cut -f1 "$work/cards" | paste -sd,)
device=$(head -1 "$work/cards" | cut -f2)
stem=$(date -u +%Y-%m-%d)-$(printf '%s' "$device" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-' | sed 's/^-//; s/-$//')
mkdir -p "$out"

# What the report says was run, in order.
commands=()
run() {
    local log=$1
    shift
    commands+=("$*")
    say "+ $*"
    if ! "$@" >"$work/$log" 2>&1; then
        tail -n 60 "$work/$log" >&2
        say "failed: $*; no report is written"
        return 1
    fi
}

# The tests that use devices, on the real one alone (tests/suite/kernels.rs, `VEILSUM_GPU`).
group=(kernels device_loss device_training federation::a_run_on_a_device)
if [ "$mode" = rehearse ]; then group=(kernels::device_words); fi
run build.log cargo test --locked --test suite --no-run
suite=$(sed -n 's|^ *Executable.*(\(.*\))$|\1|p' "$work/build.log" | tail -1)
for backend in ${backends//,/ }; do
    only=$backend
    if [ "$mode" = rehearse ]; then only=software; fi
    run "tests-$backend.log" env "VEILSUM_GPU=$only" "$suite" "${group[@]}"
done

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
sanitized="compute-sanitizer is not installed: not run."
if [ -n "$sanitizer" ] && [[ ",$backends," == *,cuda,* ]] && [ "$mode" = measure ]; then
    sanitized=
    for tool in memcheck racecheck; do
        # A few tests: each launch takes a hundred times as long. Calls that are meant to fail are no findings.
        run "$tool.log" env VEILSUM_GPU=cuda "$sanitizer" --tool "$tool" --report-api-errors no --error-exitcode 9 \
            "$suite" --test-threads=1 kernels::device_words kernels::device_encode kernels::lattice_encrypt
        sanitized+="- $tool: $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$work/$tool.log" | tail -1 | sed 's/^=* *//')"$'\n'
    done
fi

run bench.md "$veilsum" bench "${bench[@]}" --backend "$backends,simd" "${software[@]}" --markdown --out "$work/bench.jsonl"

commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
if [ -n "$(git status --porcelain --untracked-files=no 2>/dev/null)" ]; then commit+=" with local changes"; fi
{
    printf '# %s\n\n' "$device"
    if [ "$mode" = rehearse ]; then printf '**A rehearsal on a software adapter. No measurement.**\n\n'; fi
    printf -- '- Date: %s (UTC)\n- Commit: %s\n' "$(date -u '+%Y-%m-%d %H:%M')" "$commit"
    while IFS=$'\t' read -r backend name driver; do
        printf -- '- %s: %s, %s\n' "$backend" "$name" "$driver"
    done <"$work/cards"
    if command -v nvidia-smi >/dev/null; then
        printf -- '- nvidia-smi: %s\n' "$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv,noheader | paste -sd';')"
    fi
    printf -- '- System: %s, %s\n' "$(uname -srm)" "$(rustc --version 2>/dev/null || echo 'no rustc')"
    printf '\n## Commands\n\n```sh\n'
    printf '%s\n' "${commands[@]//$work/TMP}"
    printf '```\n\n## Tests on the device\n\n'
    for backend in ${backends//,/ }; do
        printf -- '- %s: %s\n' "$backend" "$(grep -E '^test result' "$work/tests-$backend.log" | tail -1)"
    done
    printf '\n## compute-sanitizer\n\n%s\n\n## Bench\n\n' "$sanitized"
    cat "$work/bench.md"
    printf '\n## Devices\n\n```json\n'
    cat "$work/devices.json"
    printf '```\n'
} >"$out/.$stem.md.new"
cp "$work/bench.jsonl" "$out/.$stem.jsonl.new"
mv "$out/.$stem.jsonl.new" "$out/$stem.jsonl"
mv "$out/.$stem.md.new" "$out/$stem.md"
say "written: $out/$stem.md"
