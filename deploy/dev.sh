#!/usr/bin/env bash
# Everything Throughline needs on this machine, from a fresh clone: gets a nats-server, builds, runs `throughline dev`.
#
#   ./deploy/dev.sh                                   stays up until Ctrl-C
#   ./deploy/dev.sh --once "Where is my order?"       answers and exits
#   ./deploy/dev.sh --help                            the options of `throughline dev`
#
# Exit codes are those of `throughline dev`; before it runs: 69 no cargo or no nats-server, else what cargo said.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$root/deploy/lib.sh"

# True when the options name a server, so that none has to be had.
names_a_server() {
  local option
  for option in "$@"; do
    case "$option" in --nats-url | --nats-url=*) return 0 ;; esac
  done
  return 1
}

need_cargo

if ! names_a_server "$@"; then
  NATS_SERVER_BIN="$("$root/deploy/nats-server.sh")"
  export NATS_SERVER_BIN
fi

if [ -x "${CARGO_TARGET_DIR:-$root/target}/debug/throughline" ]; then
  say "building"
else
  say "building (the first build takes a few minutes)"
fi
# The dev profile, so that `./tests/run.sh` and this share what they build. In a subshell: the options may hold paths
# that are relative to where the user is. Cargo tells where the program is: the target folder is the user's to choose.
status=0
messages="$(cd "$root" && cargo build --quiet --locked --bin throughline --message-format json-render-diagnostics)" || status=$?
if [ "$status" -ne 0 ]; then
  if ! command -v cc >/dev/null 2>&1; then
    say "there is no C compiler (cc), which SQLite and the linker need; Debian: apt install build-essential"
  fi
  exit "$status"
fi
program="$(printf '%s\n' "$messages" | sed -nE 's/.*"executable":"([^"]+)".*/\1/p' | tail -n 1)"

exec "$program" dev "$@"
