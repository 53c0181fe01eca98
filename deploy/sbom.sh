#!/usr/bin/env bash
# Writes what the program is made of to stdout, as a CycloneDX 1.5 document (JSON): every crate that is compiled into it or
# runs while it is built, with version, licence, checksum and what it needs. From Cargo.lock and cargo itself, so that
# nothing has to be installed; the same lock file makes the same document.
#
#   ./deploy/sbom.sh > throughline.cdx.json                 of the program for this machine's platform
#   ./deploy/sbom.sh --target aarch64-unknown-linux-gnu     of another one
#
# Needs cargo and Python 3.11. Exit codes: 0 done, 1 failed, 69 a needed program is missing.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
# shellcheck source=deploy/lib.sh
. "$root/deploy/lib.sh"

for program in cargo python3; do
  if ! command -v "$program" >/dev/null 2>&1; then
    say "$program was not found; install it and start again"
    exit "$EX_UNAVAILABLE"
  fi
done

target=""
if [ "${1:-}" = --target ]; then
  target="${2:?--target needs the name of a platform}"
  shift 2
fi
[ -n "$target" ] || target="$(rustc -vV | sed -n 's/^host: //p')"

# What follows is for cargo, such as --offline.
cargo metadata --manifest-path "$root/Cargo.toml" --format-version 1 --locked --filter-platform "$target" "$@" | python3 -c '
import json, pathlib, sys, tomllib, uuid

PROGRAM = "throughline"

root = pathlib.Path(sys.argv[1])
metadata = json.load(sys.stdin)
lock = (root / "Cargo.lock").read_bytes()
checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.loads(lock.decode())["package"]}
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}


def needs(node):
    """What is needed to build it; not what only its tests need."""
    return [dep["pkg"] for dep in node["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]


def purl(package):
    return "pkg:cargo/{}@{}".format(package["name"], package["version"])


def component(package):
    about = {
        "type": "application" if package["name"] == PROGRAM else "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("license"):
        about["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        about["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        about["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return about


(program,) = [package for package in packages.values() if package["name"] == PROGRAM and package["source"] is None]
reached, left = set(), [program["id"]]
while left:
    one = left.pop()
    if one not in reached:
        reached.add(one)
        left += needs(nodes[one])
parts = sorted((packages[one] for one in reached), key=lambda package: (package["name"], package["version"]))
document = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, lock.hex())}",
    "version": 1,
    "metadata": {"component": component(program)},
    "components": [component(part) for part in parts if part is not program],
    "dependencies": [
        {"ref": purl(part), "dependsOn": sorted(purl(packages[one]) for one in set(needs(nodes[part["id"]])) & reached)}
        for part in parts
    ],
}
json.dump(document, sys.stdout, indent=1)
print()
' "$root"
