#!/usr/bin/env bash
# Prints the name of a Docker image that tests may start, and nothing else, on stdout.
#
#   ./tests/live/images.sh postgres
#   ./tests/live/images.sh nats
#
# Looks in this order and stops at the first that will do:
#   1. $THROUGHLINE_POSTGRES_IMAGE or $THROUGHLINE_NATS_IMAGE, taken as it is
#   2. the official image, if the engine has it, or gets it from its registry within a time limit
#   3. a stand-in of the same programs (throughline-stand-in/...), made here, once, of what ./postgres.sh and
#      ../../deploy/nats-server.sh find or fetch; Linux only. It is used as the official one is and has no other name.
# Exit codes: 0 found; 2 wrong usage; 69 none can be had (no Docker engine answers, for one).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$here/../../deploy/lib.sh"

POSTGRES_IMAGE=postgres:17-alpine
NATS_IMAGE=nats:2.15-alpine
# Seconds that fetching an official image may take.
PULL_LIMIT_S="${THROUGHLINE_PULL_LIMIT_S:-120}"
# Changes when what is made below does.
STAND_IN_VERSION=4

case "${1:-}" in
  postgres) official="$POSTGRES_IMAGE" named="${THROUGHLINE_POSTGRES_IMAGE:-}" ;;
  nats) official="$NATS_IMAGE" named="${THROUGHLINE_NATS_IMAGE:-}" ;;
  *)
    say "say which: postgres or nats"
    exit 2
    ;;
esac
what="$1"

unavailable() {
  say "$*"
  exit "$EX_UNAVAILABLE"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Copies programs and libraries, and all libraries that they load, to the root file system $1, under their own paths.
copy_with_libraries() {
  local root="$1" file
  shift
  for file in "$@"; do
    printf '%s\n' "$file"
    ldd "$file" 2>/dev/null | sed -nE 's|^[^/]*(/[^ ]+) \(0x.*$|\1|p'
  done | sort -u | while IFS= read -r file; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done
}

make_nats() {
  local server
  server="$("$here/../../deploy/nats-server.sh")" || return
  mkdir -p "$1/usr/local/bin" "$1/tmp"
  cp "$server" "$1/usr/local/bin/nats-server"
  chmod 1777 "$1/tmp"
  printf '%s\n' 'ENTRYPOINT ["/usr/local/bin/nats-server"]'
}

# The programs keep their paths, so that each finds what it is linked with and what belongs to it.
make_postgres() {
  local root="$1" bin install folder
  bin="$("$here/postgres.sh")" || return
  install="$(dirname "$bin")"
  mkdir -p "$root/usr/local/bin" "$root/etc" "$root/bin" "$root/tmp" "$root/var/lib/postgresql/data" "$root/run/postgresql"
  ln -s ../run "$root/var/run"
  # Debian's share is elsewhere, and it takes time zones from the system.
  for folder in "$bin" "$install/lib" "$install/share" "/usr/share/postgresql/$(basename "$install")" /usr/share/zoneinfo; do
    [ -d "$folder" ] || continue
    mkdir -p "$root$folder"
    cp -a "$folder/." "$root$folder/"
  done
  # The compiler of queries is as large as all the rest, and not needed.
  rm -rf "$root$install"/lib/llvmjit* "$root$install"/lib/bitcode
  # initdb and the script below need a shell, COPY TO PROGRAM something to run; all need what they are linked with.
  copy_with_libraries "$root" "$(command -v dash || command -v sh)" "$(command -v cat)" "$bin"/* \
    $(find "$install/lib" -name '*.so' ! -name 'llvmjit*')
  cp -L "$(command -v dash || command -v sh)" "$root/bin/sh"
  cp -L "$(command -v cat)" "$root/bin/cat"
  printf 'root:x:0:0::/:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\npostgres:x:70:\n' >"$root/etc/group"
  chmod 1777 "$root/tmp" "$root/run/postgresql"
  cat >"$root/usr/local/bin/docker-entrypoint.sh" <<'SCRIPT'
#!/bin/sh
# What the official image does with these variables.
set -eu
case "${1:-postgres}" in postgres | -*) ;; *) exec "$@" ;; esac
[ "${1:-}" != postgres ] || shift
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?must be set}"
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  initdb --username="${POSTGRES_USER:-postgres}" --pwfile=/tmp/password --auth-host="${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" --auth-local=trust \
    --encoding=UTF8 --no-locale --pgdata="$PGDATA"
  echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  if [ -n "${POSTGRES_DB:-}" ] && [ "$POSTGRES_DB" != postgres ]; then
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" postgres
  fi
fi
exec postgres -D "$PGDATA" -h '*' "$@"
SCRIPT
  chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
  cat <<DOCKERFILE
USER 70:70
ENV PATH=$bin:/usr/local/bin:/bin PGDATA=/var/lib/postgresql/data LC_ALL=C
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
}

if [ -n "$named" ]; then
  printf '%s\n' "$named"
  exit
fi
docker version >/dev/null 2>&1 || unavailable "no Docker engine answers"
if has_image "$official"; then
  printf '%s\n' "$official"
  exit
fi

stand_in="throughline-stand-in/$what:$STAND_IN_VERSION"
if ! has_image "$stand_in"; then
  say "asking the registry for $official"
  if timeout "$PULL_LIMIT_S" docker pull --quiet "$official" >/dev/null 2>&1; then
    printf '%s\n' "$official"
    exit
  fi
  case "$(platform)" in linux-*) ;; *) unavailable "$official cannot be had from its registry" ;; esac
  say "$official cannot be had from its registry; making $stand_in of local programs"
  scratch="$(cache_scratch)"
  trap 'rm -rf "$scratch"' EXIT
  mkdir "$scratch/root"
  "make_$what" "$scratch/root" >"$scratch/instructions" || unavailable "$stand_in cannot be made"
  mkdir -p "$scratch/root/var/lib"
  tar -C "$scratch/root" --owner=0 --group=0 --exclude ./var/lib -cf "$scratch/root.tar" .
  # What the server writes to is its user's.
  tar -C "$scratch/root" --owner=70 --group=70 -rf "$scratch/root.tar" ./var/lib
  { printf 'FROM scratch\nADD root.tar /\n' && cat "$scratch/instructions"; } >"$scratch/Dockerfile"
  rm -rf "$scratch/root"
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$stand_in" "$scratch" >&2 || unavailable "$stand_in cannot be built"
fi
printf '%s\n' "$stand_in"
