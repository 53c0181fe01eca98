"""Checks that each service of deploy/compose.yaml has the secrets that it uses and no others, and is confined.

compose.py ROOT
"""

import sys
from pathlib import Path

import yaml

# What each service opens: its own NATS key, the database, the model.
NEEDS = {
    "setup": {"admin.nk", "postgres.password"},
    "worker": {"worker.nk", "postgres.password", "model.key"},
    "publish": {"publisher.nk"},
    "events": {"reader.nk"},
    "admin": {"admin.nk", "postgres.password", "model.key"},
    "postgres": {"postgres.password"},
    "nats-1": set(),
    "nats-2": set(),
    "nats-3": set(),
}

compose = yaml.safe_load((Path(sys.argv[1]) / "deploy/compose.yaml").read_text())
mistakes = []
for name, service in compose["services"].items():
    secrets = set(service.get("secrets", []))
    if name not in NEEDS:
        mistakes.append(f"{name}: nobody has said which secrets it needs")
    elif secrets != NEEDS[name]:
        mistakes.append(f"{name}: has {sorted(secrets)}, uses {sorted(NEEDS[name])}")
    key = service.get("environment", {}).get("THROUGHLINE_NATS__NKEY", "").rpartition("/")[2]
    if key and key not in secrets:
        mistakes.append(f"{name}: is {key}, which it does not have")
    confined = service.get("read_only") and service.get("cap_drop") == ["ALL"] and service.get("mem_limit")
    if not confined or "no-new-privileges:true" not in service.get("security_opt", []):
        mistakes.append(f"{name}: not confined")
    if ":" not in service["image"] or service["image"].endswith(":latest"):
        mistakes.append(f"{name}: {service['image']} is whatever is newest")
for secret in compose["secrets"]:
    if not any(secret in service.get("secrets", []) for service in compose["services"].values()):
        mistakes.append(f"{secret}: nobody has it")

print("\n".join(mistakes) or f"{len(compose['services'])} services are as they should be")
sys.exit(bool(mistakes))
