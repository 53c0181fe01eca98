#!/usr/bin/env bash
# Starts what deploy/compose.yaml describes and uses it as its users would. Prints its result as cargo's test runner does.
#
#   ./tests/compose/run.sh              needs Docker, Docker Compose, and Debian's packages for the images
#   ./tests/compose/run.sh --can        only says whether this machine can run it
#
# Environment: NATS_SERVER_BIN as tests/run.sh finds it.
# Exit codes: 0 passed; 1 failed; 69 this machine cannot run it, and the last line on stderr says why.
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
cd "$root" || exit
# shellcheck source=deploy/lib.sh
. "$root/deploy/lib.sh"
# shellcheck source=tests/compose/images.sh
. "$root/tests/compose/images.sh"

# How many inputs are published at a time.
INPUTS=20
# Seconds for the stack to be ready, with everything on two cores; and for one batch of answers.
READY_LIMIT_S=180
ANSWER_LIMIT_S=90

cannot() {
  say "$*"
  exit "$EX_UNAVAILABLE"
}

[ -x ./tests/live/images.sh ] || cannot "tests/live/images.sh, which has an image of PostgreSQL, is not there"
docker version >/dev/null 2>&1 || cannot "no Docker engine answers"
if docker compose version >/dev/null 2>&1; then
  COMPOSE=(docker compose)
elif command -v docker-compose >/dev/null 2>&1; then
  COMPOSE=(docker-compose)
else
  cannot "there is neither 'docker compose' nor docker-compose"
fi
for program in openssl python3 strip ldd dpkg-deb; do
  command -v "$program" >/dev/null || cannot "$program was not found"
done
NATS_SERVER_BIN="${NATS_SERVER_BIN:-$(./deploy/nats-server.sh)}" || exit
static_busybox >/dev/null || exit
need_cargo || exit
[ "${1:-}" != --can ] || exit 0
cargo build --quiet --locked --bin throughline || exit 1
program="${CARGO_TARGET_DIR:-$root/target}/debug/throughline"

scratch="$(mktemp -d)" || exit
project="throughline-test-$$"
tree="$scratch/tree"
NATS_PORT="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export NATS_PORT IMAGE_TAG="test-$$" COMPOSE_PROJECT_NAME="$project" DOCKER_BUILDKIT="${DOCKER_BUILDKIT:-0}" COMPOSE_DOCKER_CLI_BUILD=0

compose() { "${COMPOSE[@]}" -f "$tree/deploy/compose.yaml" -f "$tree/deploy/compose/sandbox.yaml" "$@"; }
containers() { docker ps --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }

clean_up() {
  compose down -v --remove-orphans >/dev/null 2>&1
  docker rmi --force "throughline:$IMAGE_TAG" >/dev/null 2>&1
  remove_stand_ins
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

passed=0
# check NAME COMMAND...: the first failure ends the test, with what the containers said.
check() {
  local name="$1" began="$SECONDS"
  shift
  if "$@" >"$scratch/log" 2>&1; then
    passed=$((passed + 1))
    printf 'test compose_%s ... ok (%d s)\n' "$name" $((SECONDS - began))
    return
  fi
  printf 'test compose_%s ... FAILED\n' "$name"
  tail -n 40 "$scratch/log"
  compose ps 2>&1
  compose logs --tail 15 --no-color 2>&1 | cut -c1-400
  printf '\ntest result: FAILED. %d passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n' "$passed"
  exit 1
}

# --- the checks, in the order in which a user would do things -------------------------------------------------------

# A copy of what git has: the secrets go into a folder of their own, and the build context is a fresh clone's.
images_are_built_from_the_shipped_dockerfile() {
  mkdir -p "$tree" && git ls-files -co --exclude-standard -z | tar --null -T - -c | tar -x -C "$tree" || return
  make_images "$scratch" "$program" || return
  "$tree/deploy/secrets.sh" && : >"$tree/deploy/secrets/model.key" || return
  compose build worker || return
  compose config >/dev/null
}

the_image_is_small_and_not_root() {
  local image="throughline:$IMAGE_TAG" user size
  user="$(docker image inspect --format '{{.Config.User}}' "$image")"
  size="$(docker image inspect --format '{{.Size}}' "$image")"
  printf 'user %s, %d MiB\n' "$user" $((size >> 20)) | tee "$scratch/image"
  case "$user" in '' | root | 0 | 0:*) return 1 ;; esac
  [ "$size" -lt $((160 << 20)) ] || return
  docker run --rm --read-only --network none "$image" --version || return
  ! docker run --rm --read-only --network none --entrypoint /bin/sh "$image" -c true
}

it_comes_up_with_one_command() {
  compose up -d --scale worker=2 || return
  local deadline=$((SECONDS + READY_LIMIT_S)) id healthy
  while :; do
    healthy=0
    for id in $(containers worker); do
      [ "$(docker inspect --format '{{.State.Health.Status}}' "$id")" != healthy ] || healthy=$((healthy + 1))
    done
    [ "$healthy" -lt 2 ] || return 0
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 1
  done
}

containers_are_confined() {
  local id
  for id in $(docker ps --quiet --filter "label=com.docker.compose.project=$project"); do
    docker inspect --format '{{.Name}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}} {{.HostConfig.CapDrop}} {{.HostConfig.Memory}} {{json .HostConfig.PortBindings}}' "$id"
  done >"$scratch/confined"
  cat "$scratch/confined"
  [ "$(wc -l <"$scratch/confined")" -ge 7 ] || return
  # Nothing writes to its image, gains rights, takes all memory, or listens on this machine but on loopback.
  ! grep -vE ' true \[no-new-privileges:true\] \[ALL\] [1-9][0-9]* ' "$scratch/confined" &&
    ! grep -E '"HostIp":"(|0\.0\.0\.0|::)"' "$scratch/confined"
}

inputs() {
  local number
  for number in $(seq "$INPUTS"); do
    printf '{"user_id":"demo","session_id":"%s-%d","user_input":"Where is my order #W10007?","workflow_id":"%s-w%d"}\n' "$1" $((number % 5)) "$1" "$number"
  done
}

# Every input has an answer, and each its own.
saved() { [ "$(grep '"response":{' "$1" | grep -oE '"workflow_id":"[^"]+"' | sort -u | wc -l)" -eq "$INPUTS" ]; }

inputs_are_answered() {
  inputs first | timeout "$ANSWER_LIMIT_S" "${COMPOSE[@]}" -f "$tree/deploy/compose.yaml" -f "$tree/deploy/compose/sandbox.yaml" \
    run --rm -T publish --wait --json --file - >"$scratch/first" || { cat "$scratch/first"; return 1; }
  cat "$scratch/first"
  saved "$scratch/first"
}

# The program on this machine, without what the environment would tell it.
outside() { env -i PATH="$PATH" timeout "$ANSWER_LIMIT_S" "$program" "$@"; }

# From outside of the stack, over TLS, as the publisher.
a_client_on_this_machine_is_answered() {
  cat >"$scratch/client.toml" <<TOML
[nats]
url = "tls://localhost:$NATS_PORT"
nkey = "file:$tree/deploy/secrets/publisher.nk"
inbox_prefix = "_INBOX_publisher"
tls_ca_file = "$tree/deploy/secrets/tls/ca.pem"
TOML
  outside --config "$scratch/client.toml" \
    publish --user demo --session outside --wait "Are the headphones PROD-001 in stock?"
}

a_killed_worker_loses_nothing() {
  local victim
  inputs second >"$scratch/inputs"
  outside --config "$scratch/client.toml" publish --wait --json --file "$scratch/inputs" >"$scratch/second" &
  local publisher=$!
  victim="$(containers worker | head -n 1)"
  docker kill --signal KILL "$victim" || return
  # Or nothing was in flight, and this proves nothing.
  [ "$(wc -l <"$scratch/second")" -lt "$INPUTS" ] || return
  wait "$publisher" || { cat "$scratch/second"; return 1; }
  saved "$scratch/second"
}

doctor_finds_nothing_to_change() {
  compose run --rm -T admin doctor --role admin --json >"$scratch/doctor" || { cat "$scratch/doctor"; return 1; }
  cat "$scratch/doctor"
  python3 - "$scratch/doctor" <<'PYTHON'
import json, sys

findings = {finding["name"]: finding for finding in json.load(open(sys.argv[1]))}
for name in ("nats", "streams", "sync", "permissions", "clock", "database"):
    assert findings[name]["status"] == "ok", findings[name]
assert "3 servers" in findings["sync"]["detail"], findings["sync"]
PYTHON
}

workers_drain_when_they_are_stopped() {
  local id
  compose stop worker || return
  for id in $(docker ps --all --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=worker"); do
    docker inspect --format '{{.Name}} {{.State.ExitCode}}' "$id"
  done | tee "$scratch/stopped"
  # One was killed, the other ended by itself.
  grep -q ' 0$' "$scratch/stopped" && [ "$(grep -c ' 137$' "$scratch/stopped")" -le 1 ]
}

nothing_is_left() {
  local kind
  compose down -v --remove-orphans || return
  for kind in "ps --all" "volume ls" "network ls"; do
    # shellcheck disable=SC2086
    [ -z "$(docker $kind --quiet --filter "label=com.docker.compose.project=$project")" ] || { docker $kind; return 1; }
  done
}

began="$SECONDS"
for name in images_are_built_from_the_shipped_dockerfile the_image_is_small_and_not_root it_comes_up_with_one_command \
  containers_are_confined inputs_are_answered a_client_on_this_machine_is_answered a_killed_worker_loses_nothing \
  doctor_finds_nothing_to_change workers_drain_when_they_are_stopped nothing_is_left; do
  check "$name" "$name"
done
cat "$scratch/image"
printf '\ntest result: ok. %d passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in %d s\n' "$passed" $((SECONDS - began))
