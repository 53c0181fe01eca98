#!/usr/bin/env bash
# Every check that this machine can run, or the tiers named as arguments.
#
#   ./tests/run.sh                 format clippy unit flow wire live deploy compose deny
#   ./tests/run.sh flow wire       these two
#
#   format      rustfmt
#   clippy      clippy on every target, warnings are errors
#   unit        unit and documentation tests of all packages
#   flow        whole workflows on an in-memory bus with a paused clock
#   wire        the real adapters on loopback
#   live        a real nats-server and PostgreSQL, real processes, an independent client (nats-py), llmock, llama-server
#   deploy      the scripts and configuration in deploy/
#   compose     the stack of deploy/compose.yaml, started and used (Docker and Docker Compose)
#   deny        licences, sources, duplicates and walls of the dependency tree (cargo-deny)
#   advisories  known vulnerabilities; only when named: it needs the network and its answer changes without a commit
#
# What a tier needs is fetched into a cache (see deploy/nats-server.sh). A tier whose need cannot be met is left out, and
# the summary says why; a tier that was named, and `live` when CI is set, fails instead.
# Environment:
#   THROUGHLINE_CORPORA         test material, by default ../shared/corpora where that exists
#   THROUGHLINE_TEST_SERVERS    where nats-server and PostgreSQL of the live tier run. Unset: in containers (testcontainers)
#                               where a Docker engine answers and has the image or can get it, else from local programs.
#                               `local`: from local programs; `containers`: in containers or the tests fail
#   THROUGHLINE_NATS_IMAGE,     the image to start, taken as it is. Unset: tests/live/images.sh finds, fetches or makes one;
#   THROUGHLINE_POSTGRES_IMAGE  set and empty: none, a local program is used
# Exit codes: 0 nothing failed; 1 something failed; 2 wrong usage; 69 no cargo.
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$root" || exit
# shellcheck source=deploy/lib.sh
. deploy/lib.sh

# Live tests that hold time or processor against a limit: they run one after the other, with the machine to themselves.
TIMED="idle:: stopping::restarting outages::workers_wait chaos::everything nats_cluster:: shares::"
DEFAULT_TIERS="format clippy unit flow wire live deploy compose deny"
# Seconds after which a command that hangs is stopped, so that CI ends with a verdict. Not at a terminal: there Ctrl-C does.
BUILD_LIMIT_S=2400
TEST_LIMIT_S=1800

usage() { sed -nE '2,/^set /{ /^set /d; s/^# ?//; p; }' "$0"; }

tiers=""
for argument in "$@"; do
  case "$argument" in
    -h | --help)
      usage
      exit
      ;;
    format | clippy | unit | flow | wire | live | deploy | compose | deny | advisories) tiers="$tiers $argument" ;;
    *)
      say "there is no tier called '$argument'; ./tests/run.sh --help lists them"
      exit 2
      ;;
  esac
done
named="$tiers"
tiers="${tiers:-$DEFAULT_TIERS}"

scratch="$(mktemp -d)" || exit
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

summary=""
passed=0 failed=0 skipped=0

chosen() {
  local tier
  for tier in "$@"; do case " $tiers " in *" $tier "*) return 0 ;; esac; done
  return 1
}

# limited SECONDS COMMAND...
limited() {
  if [ ! -t 0 ] && command -v timeout >/dev/null 2>&1; then
    timeout -k 10 "$@"
  else
    shift
    "$@"
  fi
}

# row TIER SECONDS RESULT
row() { summary="$summary$(printf '%-11s %7s  %s' "$@")"$'\n'; }

# run TIER HEADING COMMAND...: runs it under a heading and counts what the test runners in it report.
run() {
  local tier="$1" heading="$2" log="$scratch/log" began="$SECONDS" status counts tier_passed tier_failed tier_skipped
  shift 2
  printf '\n== %s: %s\n' "$tier" "$heading"
  "$@" 2>&1 | tee "$log"
  status="${PIPESTATUS[0]}"
  # Every runner here closes with cargo's line: "test result: ok. 3 passed; 0 failed; 1 ignored; ...".
  counts="$(sed $'s/\x1b\\[[0-9;]*m//g' "$log" | awk '
    /^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) s += $(i-1) } }
    END { print p + 0, f + 0, s + 0 }')"
  read -r tier_passed tier_failed tier_skipped <<<"$counts"
  # A failure that no test reported (a crash, a time limit, a compiler or clippy error) is one failure too.
  [ "$status" -eq 0 ] || [ "$tier_failed" -gt 0 ] || tier_failed=1
  passed=$((passed + tier_passed)) failed=$((failed + tier_failed)) skipped=$((skipped + tier_skipped))
  if [ "$status" -eq 124 ]; then
    row "$tier" $((SECONDS - began)) "FAILED: stopped at its time limit"
  elif [ "$tier_failed" -gt 0 ]; then
    row "$tier" $((SECONDS - began)) "FAILED"
  elif [ "$((tier_passed + tier_skipped))" -gt 0 ]; then
    row "$tier" $((SECONDS - began)) "passed: $tier_passed tests, $tier_skipped skipped"
  else
    row "$tier" $((SECONDS - began)) "passed"
  fi
  [ "$tier_failed" -eq 0 ]
}

# leave_out TIER REASON
leave_out() {
  printf '\n== %s: left out: %s\n' "$1" "$2"
  case " $named " in
    *" $1 "*) set -- "$1" "$2" must ;;
    *) [ "$1" != live ] || [ -z "${CI:-}" ] || set -- "$1" "$2" must ;;
  esac
  if [ $# -eq 3 ]; then
    failed=$((failed + 1))
    row "$1" "" "FAILED: cannot run: $2"
  else
    row "$1" "" "left out: $2"
  fi
}

# told NAME COMMAND...: runs it; what it says on stderr is shown and kept in NAME, for the reason of what is left out.
told() {
  local name="$1" status=0
  shift
  "$@" 2>"$scratch/$name" || status=$?
  cat "$scratch/$name" >&2
  return "$status"
}

# One selection of packages for every call, so that cargo unifies their features once and builds everything once.
cargo_test() { limited "$TEST_LIMIT_S" cargo test --workspace --locked --no-fail-fast "$@"; }

# Libraries, programs, documentation, and every test target that is not a tier of its own: none is forgotten.
unit_tests() {
  local targets=() name status=0
  while IFS= read -r name; do
    case "$name" in '' | flow | wire | live) ;; *) targets+=(--test "$name") ;; esac
  done < <(cargo metadata --format-version 1 --no-deps --locked | grep -oE '"kind":\["test"\],"crate_types":\["bin"\],"name":"[^"]+"' |
    sed -E 's/.*"name":"([^"]+)"/\1/' | sort -u)
  # `${targets[@]+...}`: bash 3.2 takes an empty array for an unset one.
  cargo_test --lib --bins --examples ${targets[@]+"${targets[@]}"} || status=$?
  cargo_test --doc || status=$?
  return "$status"
}

# What tests said they cannot do here: lines "test: reason" (tests/live/harness/left_out.rs), by reason.
show_left_out() {
  [ -s "$scratch/left-out" ] || return 0
  sort -u "$scratch/left-out" | awk '
    { at = index($0, ": "); reason = substr($0, at + 2); names[reason] = names[reason] (count[reason]++ ? ", " : "") substr($0, 1, at - 1) }
    END { for (reason in names) printf "left out of live: %s: %s\n", names[reason], reason }' | sort
}

# image_of NATS|POSTGRES: makes sure of the image here, so that no test waits for a registry. Exports its name, or the empty
# name where local programs are to be used.
image_of() {
  local variable="THROUGHLINE_$1_IMAGE" what image
  what="$(printf '%s' "$1" | tr '[:upper:]' '[:lower:]')"
  if [ "${THROUGHLINE_TEST_SERVERS:-}" = local ] || [ -z "${!variable-unset}" ]; then
    image=""
  else
    image="$(told "$what-image" ./tests/live/images.sh "$what")" || image=""
  fi
  export "$variable=$image"
  [ -n "$image" ]
}

# What became of the messages of the tests that make something fail (tests/live/harness/figures.rs).
show_figures() {
  [ -s "$scratch/figures" ] || return 0
  printf '\n%3s  %-58s %5s %6s %5s %7s %9s %6s %7s\n' row fault sent faults lost doubled disorder calls+ over
  sort -s -n -k 1,1 "$scratch/figures"
}

need_cargo || exit
if [ -n "${CI:-}" ]; then
  # A fresh clone is built once: what makes the next build faster only costs time and disk.
  export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
fi

no_server="" no_live="" no_python="" no_llmock="" no_llama="" no_postgres="" no_corpora=""
if chosen wire live deploy compose; then
  if NATS_SERVER_BIN="$(told nats-server ./deploy/nats-server.sh)"; then
    export NATS_SERVER_BIN
    printf 'nats-server: %s\n' "$NATS_SERVER_BIN"
  else
    no_server="no nats-server could be had, see the beginning of this output"
    unset NATS_SERVER_BIN
  fi
fi
if chosen live; then
  if image_of NATS; then
    printf 'nats-server of live: container of %s\n' "$THROUGHLINE_NATS_IMAGE"
    [ -z "$no_server" ] || printf 'nats-server of live: no local program, so what needs one is left out: a cluster of three, throughline dev\n'
  else
    no_live="$no_server"
  fi
fi
if chosen live && [ -z "$no_live" ]; then
  if THROUGHLINE_TEST_OLDEST_NATS="$(told oldest ./deploy/nats-server.sh --oldest)"; then
    export THROUGHLINE_TEST_OLDEST_NATS
    printf 'oldest nats-server: %s\n' "$THROUGHLINE_TEST_OLDEST_NATS"
  else
    unset THROUGHLINE_TEST_OLDEST_NATS
  fi
  if THROUGHLINE_TEST_PYTHON="$(told python ./tests/live/python.sh)"; then
    export THROUGHLINE_TEST_PYTHON
    printf 'Python with nats-py: %s\n' "$THROUGHLINE_TEST_PYTHON"
  else
    no_python="$(tail -n 1 "$scratch/python")"
    unset THROUGHLINE_TEST_PYTHON
  fi
  if THROUGHLINE_TEST_LLMOCK="$(told llmock ./tests/live/python.sh llmock)"; then
    export THROUGHLINE_TEST_LLMOCK
    printf 'Python with llmock: %s\n' "$THROUGHLINE_TEST_LLMOCK"
  else
    no_llmock="$(tail -n 1 "$scratch/llmock")"
    unset THROUGHLINE_TEST_LLMOCK
  fi
  if THROUGHLINE_TEST_LLAMA="$(told llama ./tests/live/llama-server.sh)"; then
    export THROUGHLINE_TEST_LLAMA
    printf 'llama-server: %s\n' "$THROUGHLINE_TEST_LLAMA"
  else
    no_llama="$(tail -n 1 "$scratch/llama")"
    unset THROUGHLINE_TEST_LLAMA
  fi
fi
if chosen live && [ -z "$no_live" ]; then
  if image_of POSTGRES; then
    printf 'PostgreSQL: container of %s\n' "$THROUGHLINE_POSTGRES_IMAGE"
  else
    if POSTGRES_BIN_DIR="$(told postgres ./tests/live/postgres.sh)"; then
      export POSTGRES_BIN_DIR
      printf 'PostgreSQL: %s\n' "$POSTGRES_BIN_DIR"
    else
      no_postgres="$(tail -n 1 "$scratch/postgres")"
      unset POSTGRES_BIN_DIR
    fi
  fi
fi
if [ -z "${THROUGHLINE_CORPORA:-}" ] && [ -d "$root/../shared/corpora" ]; then
  THROUGHLINE_CORPORA="$(cd "$root/../shared/corpora" && pwd -P)"
fi
if [ -d "${THROUGHLINE_CORPORA:-}" ]; then
  export THROUGHLINE_CORPORA
  printf 'corpora: %s\n' "$THROUGHLINE_CORPORA"
else
  no_corpora="${THROUGHLINE_CORPORA:-THROUGHLINE_CORPORA is not set} is no folder"
  [ -n "${THROUGHLINE_CORPORA:-}" ] || no_corpora="THROUGHLINE_CORPORA is not set and ../shared/corpora does not exist"
  unset THROUGHLINE_CORPORA
fi

if chosen format; then
  if cargo fmt --version >/dev/null 2>&1; then
    run format "cargo fmt --all --check" limited "$TEST_LIMIT_S" cargo fmt --all --check
  else
    leave_out format "rustfmt is not installed (rustup component add rustfmt)"
  fi
fi

if chosen clippy; then
  if cargo clippy --version >/dev/null 2>&1; then
    run clippy "cargo clippy on all targets, warnings are errors" \
      limited "$BUILD_LIMIT_S" cargo clippy --workspace --all-targets --locked -- -D warnings
  else
    leave_out clippy "clippy is not installed (rustup component add clippy)"
  fi
fi

if chosen unit flow wire live; then
  # On its own, so that the tiers' seconds are those of the tests. When it fails, so would every tier.
  if run build "cargo test --workspace --no-run" limited "$BUILD_LIMIT_S" cargo test --workspace --locked --no-run; then
    if chosen unit; then run unit "unit and documentation tests" unit_tests; fi
    if chosen flow; then run flow "in-memory bus, paused clock" cargo_test --test flow; fi
    if chosen wire; then run wire "real adapters on loopback" cargo_test --test wire; fi
    if chosen live; then
      if [ -z "$no_live" ]; then
        export THROUGHLINE_TEST_FIGURES="$scratch/figures" THROUGHLINE_TEST_LEFT_OUT="$scratch/left-out"
        skips=()
        for name in $TIMED; do skips+=(--skip "$name"); done
        run live "a real nats-server, real processes" cargo_test --test live -- "${skips[@]}"
        # shellcheck disable=SC2086 # a list
        run timed "the live tests that need the machine to themselves" cargo_test --test live -- --test-threads=1 $TIMED
        unset THROUGHLINE_TEST_FIGURES THROUGHLINE_TEST_LEFT_OUT
        show_figures
      else
        leave_out live "$no_live"
      fi
    fi
  else
    for tier in unit flow wire live; do if chosen "$tier"; then row "$tier" "" "not run: the build failed"; fi; done
  fi
fi

if chosen deploy; then
  run deploy "the scripts and configuration in deploy/" limited "$TEST_LIMIT_S" ./tests/deploy/run.sh
fi

if chosen compose; then
  if [ -n "$no_server" ]; then
    leave_out compose "$no_server"
  elif reason="$(./tests/compose/run.sh --can 2>&1 >/dev/null)"; then
    run compose "the stack of deploy/compose.yaml" limited "$TEST_LIMIT_S" ./tests/compose/run.sh
  else
    leave_out compose "$(printf '%s\n' "$reason" | tail -n 1)"
  fi
fi

if chosen deny advisories; then
  if cargo_deny="$(told deny ./tests/cargo-deny.sh)"; then
    if chosen deny; then
      run deny "cargo deny check bans licenses sources" limited "$TEST_LIMIT_S" "$cargo_deny" --locked check bans licenses sources
    fi
    if chosen advisories; then
      run advisories "cargo deny check advisories" limited "$TEST_LIMIT_S" "$cargo_deny" --locked check advisories
    fi
  else
    for tier in deny advisories; do if chosen "$tier"; then leave_out "$tier" "no cargo-deny: $(tail -n 1 "$scratch/deny")"; fi; done
  fi
fi
[ -n "$named" ] || row advisories "" "left out: needs the network; ./tests/run.sh advisories runs it"

printf '\n%-11s %7s  %s\n%s' tier seconds result "$summary"
printf 'took %d min %02d s on %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$(platform)"
if chosen live && [ -n "$no_python" ]; then printf 'left out of live: the independent client (nats-py): %s\n' "$no_python"; fi
if chosen live && [ -n "$no_postgres" ]; then printf 'left out of live: PostgreSQL: %s\n' "$no_postgres"; fi
if chosen live && [ -n "$no_llmock" ]; then printf 'left out of live: the judge of the model client (llmock): %s\n' "$no_llmock"; fi
if chosen live && [ -n "$no_llama" ]; then printf 'left out of live: a real inference server (llama-server): %s\n' "$no_llama"; fi
show_left_out
if chosen unit flow wire live && [ -n "$no_corpora" ]; then printf 'left out: tests on the corpora: %s\n' "$no_corpora"; fi
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
