#!/usr/bin/env bash
# Prints the path of a Python that has what a requirements file lists, and nothing else, on stdout.
#
#   ./tests/live/python.sh           nats-py (requirements.txt)
#   ./tests/live/python.sh llmock    llmock, a server that plays model providers and their faults (requirements-llmock.txt)
#   ./tests/live/python.sh kubernetes    the schemas of Kubernetes' API (../deploy/requirements.txt)
#
# It is a virtual environment in the cache (see deploy/lib.sh), made at the first call.
# Exit codes: 0 made; 1 what was offered is not what is pinned; 2 wrong usage; 69 it could not be had.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$here/../../deploy/lib.sh"

case "${1-nats}" in
  nats) requirements="$here/requirements.txt" minor=8 module=nats.js found=nats ;;
  llmock) requirements="$here/requirements-llmock.txt" minor=10 module=llmock.main found=llmock ;;
  kubernetes) requirements="$here/../deploy/requirements.txt" minor=11 module=kubernetes_validate found=kubernetes_validate ;;
  *)
    say "there is no '$1'; it is nats (default), llmock or kubernetes"
    exit 2
    ;;
esac
# works PYTHON MODULE
works() { [ -x "$1" ] && "$1" -c "import $2" 2>/dev/null; }

if ! python3 -c "import sys; sys.exit(sys.version_info < (3, $minor))" 2>/dev/null; then
  say "Python 3.$minor or newer is not installed"
  exit "$EX_UNAVAILABLE"
fi
# Another Python or other requirements make another environment, so a cached one is never out of date.
key="$(python3 -c '
import hashlib, sys
text = open(sys.argv[1], "rb").read() + sys.version.encode() + sys.base_prefix.encode()
print(hashlib.sha256(text).hexdigest()[:16])' "$requirements")"
env_dir="$(cache_dir)/python-$key"

# What is in the cache was whole when it was put there, so the cheaper look (a third of a second, not four) will do.
if ! works "$env_dir/bin/python" "$found"; then
  have_pip
  scratch="$(cache_scratch)"
  trap 'rm -rf "$scratch"' EXIT
  # No pip inside: Debian leaves out what would install it (python3-venv), and the pip outside can do it.
  if ! python3 -m venv --without-pip "$scratch/env" >&2; then
    say "python3 -m venv failed"
    exit "$EX_UNAVAILABLE"
  fi
  site="$("$scratch/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  # PIP_USER=0: a user's setting to install into the home folder contradicts --target.
  PIP_USER=0 pip_pinned install "$scratch/pip.log" --target "$site" --requirement "$requirements"
  if ! works "$scratch/env/bin/python" "$module"; then
    say "$module was installed but cannot be imported"
    exit "$EX_UNAVAILABLE"
  fi
  # Renamed into place in one step. Somebody else may have been quicker, with the same result; a broken one makes way.
  if ! python3 -c 'import os, sys; os.rename(*sys.argv[1:])' "$scratch/env" "$env_dir" 2>/dev/null && ! works "$env_dir/bin/python" "$found"; then
    mv "$env_dir" "$scratch/broken" && mv "$scratch/env" "$env_dir"
  fi
fi
printf '%s\n' "$env_dir/bin/python"
