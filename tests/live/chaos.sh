#!/usr/bin/env bash
# Workers, servers and the database fail at random while an independent client publishes; then independent ledgers say
# whether a promise was broken. Runs until every message is published and has ended, and prints the seed and the figures.
#
#   tests/live/chaos.sh [--mix kills|everything] [--seed N] [--minutes M] [--sessions S] [--per-second R] [--workers W]
#                       [--model-faults PERCENT] [--logs DIR]
#
# Without flags: everything, for two minutes, with a seed of its own. With --logs the logs of all processes are kept in
# DIR. A run of a given seed has the same schedule of faults.
# Exit codes: 0 every promise was kept; 1 one was broken, or something could not run; 2 wrong usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() { sed -nE '2,/^set /{ /^set /d; s/^# ?//; p; }' "tests/live/chaos.sh"; }

mix=everything minutes=2 sessions=40 per_second=10 seed=$((RANDOM * 32768 + RANDOM))
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage && exit ;;
    --mix | --seed | --minutes | --sessions | --per-second | --workers | --model-faults | --logs)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2 && exit 2; }
      case "$1" in
        --mix) mix="$2" ;;
        --seed) seed="$2" ;;
        --minutes) minutes="$2" ;;
        --sessions) sessions="$2" ;;
        --per-second) per_second="$2" ;;
        --workers) export THROUGHLINE_CHAOS_WORKERS="$2" ;;
        --logs) export THROUGHLINE_CHAOS_LOGS="$(realpath -m "$2")" ;;
        --model-faults) export THROUGHLINE_CHAOS_MODEL_FAULTS="$2" ;;
      esac
      shift 2
      ;;
    *) echo "there is no flag '$1'; tests/live/chaos.sh --help lists them" >&2 && exit 2 ;;
  esac
done
case "$mix" in
  kills) test=workers_are_killed_all_the_time ;;
  everything) test=everything_fails_now_and_then ;;
  *) echo "--mix is kills or everything" >&2 && exit 2 ;;
esac

NATS_SERVER_BIN="$(./deploy/nats-server.sh)"
THROUGHLINE_TEST_PYTHON="$(./tests/live/python.sh)"
export NATS_SERVER_BIN THROUGHLINE_TEST_PYTHON CI=true
export THROUGHLINE_CHAOS_SEED="$seed" THROUGHLINE_CHAOS_SESSIONS="$sessions" THROUGHLINE_CHAOS_PER_SECOND="$per_second"
THROUGHLINE_CHAOS_TURNS="$(awk -v m="$minutes" -v r="$per_second" -v s="$sessions" 'BEGIN { t = int(m * 60 * r / s); print t < 1 ? 1 : t }')"
export THROUGHLINE_CHAOS_TURNS
# With the workspace, so that what the tests have built is used as it is.
exec cargo test --workspace --test live --locked -- --exact "chaos::$test" --nocapture
