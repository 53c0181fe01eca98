#!/usr/bin/env bash
# Many workflows through a log that holds few of them, with workers killed at random; then it is counted whether an input was
# refused, a workflow lost or doubled, or a message neither in the log nor in an archive. A report is printed as JSON.
#
#   tests/live/volume.sh [--workflows N] [--body BYTES] [--log-mib M] [--open N] [--turns N] [--workers W] [--kill-every SECONDS] [--seed N]
#                        [--folder DIR]
#
# Without flags: 20,000 workflows of 2,000 bytes through 64 MiB, 256 open, sessions of 4 turns, 2 workers, one killed about every
# 10 seconds. A workflow takes about 25 kB of the log, and more behind earlier turns of its session. Uses a release build.
# Exit codes: 0 nothing was refused, lost or doubled; 1 something was; 2 wrong usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() { sed -nE '2,/^set /{ /^set /d; s/^# ?//; p; }' "tests/live/volume.sh"; }

workflows=20000 body=2000 log_mib=64 open=256 turns=4 workers=2 kill_every=10 seed=1 folder=
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage && exit ;;
    --workflows | --body | --log-mib | --open | --turns | --workers | --kill-every | --seed | --folder)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2 && exit 2; }
      case "$1" in
        --workflows) workflows="$2" ;;
        --body) body="$2" ;;
        --log-mib) log_mib="$2" ;;
        --open) open="$2" ;;
        --turns) turns="$2" ;;
        --workers) workers="$2" ;;
        --kill-every) kill_every="$2" ;;
        --seed) seed="$2" ;;
        --folder) folder="$(realpath -m "$2")" ;;
      esac
      shift 2
      ;;
    *) echo "there is no flag '$1'; tests/live/volume.sh --help lists them" >&2 && exit 2 ;;
  esac
done

nats_server="$(./deploy/nats-server.sh)"
python="$(./tests/live/python.sh)"
cargo build --workspace --release --locked
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
# In a folder that was named, everything stays.
: "${folder:=$scratch/run}"
cat >"$scratch/plan.json" <<PLAN
{"binary": "$PWD/target/release/throughline", "nats_server": "$nats_server", "folder": "$folder", "seed": $seed,
 "workflows": $workflows, "body_bytes": $body, "log_mib": $log_mib, "open": $open, "turns": $turns, "workers": $workers,
 "kill_every_s": $kill_every, "wait_s": 90}
PLAN
"$python" tests/live/client/volume.py "$scratch/plan.json"
