"""Validates rendered manifests by Kubernetes' own schemas, and what no schema knows: names, ports, paths, times and rights.

kubernetes.py ROOT RENDERED
"""

import re
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

VERSIONS = ("1.29", "1.34")
# What the worker answers (src/http/endpoints.rs) and what nats-server does.
PROBES = {"worker": {"/healthz", "/readyz"}, "nats": {"/healthz?js-enabled-only=true", "/healthz?js-server-only=true"}}
STAGES = ("input", "context", "external", "generation", "persistence")

root, rendered = Path(sys.argv[1]), Path(sys.argv[2])
objects = [o for o in yaml.safe_load_all(rendered.read_text()) if o]
mistakes = []


def expect(condition, what):
    if not condition:
        mistakes.append(what)


def named(kind, name=None):
    return [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]


for one in objects:
    where = f"{one['kind']} {one['metadata']['name']}"
    expect("namespace" not in one["metadata"], f"{where}: names a namespace")
    if one["apiVersion"].startswith("keda.sh/"):
        continue
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            mistakes.append(f"{where} ({version}): {error}")

config = tomllib.loads(next(iter(named("ConfigMap"))) and
                       next(o for o in named("ConfigMap") if o["metadata"]["name"].startswith("throughline"))["data"]["throughline.toml"])
grace_s = config["worker"]["drain_grace_ms"] / 1000
port = int(config["http"]["listen"].rpartition(":")[2])
secrets_made = set(re.findall(r"create secret generic ([a-z-]+)", (root / "deploy/README.md").read_text()))

for one in named("Deployment") + named("Job") + named("StatefulSet"):
    name = one["metadata"]["name"]
    template = one["spec"]["template"]
    pod = template["spec"]
    if "selector" in one["spec"]:
        wanted = one["spec"]["selector"]["matchLabels"]
        expect(wanted.items() <= template["metadata"]["labels"].items(), f"{name}: the selector misses its own pods")
    expect(pod["securityContext"].get("runAsNonRoot"), f"{name}: may run as root")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"]: claim for claim in one["spec"].get("volumeClaimTemplates", [])}
    for volume in volumes.values():
        if "configMap" in volume:
            expect(named("ConfigMap", volume["configMap"]["name"]), f"{name}: no ConfigMap {volume['configMap']['name']}")
        if "secret" in volume:
            expect(volume["secret"]["secretName"] in secrets_made, f"{name}: the README makes no secret {volume['secret']['secretName']}")
    for container in pod["containers"]:
        confined = container["securityContext"]
        expect(confined.get("readOnlyRootFilesystem") and confined.get("allowPrivilegeEscalation") is False
               and confined["capabilities"]["drop"] == ["ALL"], f"{name}: not confined")
        expect("memory" in container["resources"]["limits"], f"{name}: no memory limit")
        ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        for mount in container["volumeMounts"]:
            expect(mount["name"] in volumes, f"{name}: nothing to mount as {mount['name']}")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe not in container:
                expect(one["kind"] == "Job", f"{name}: no {probe}")
                continue
            get = container[probe]["httpGet"]
            expect(get["port"] in ports, f"{name}: {probe} asks a port that is not there")
            expect(get["path"] in PROBES[container["name"]], f"{name}: {probe} asks {get['path']}")
        if container["name"] == "worker":
            expect(ports["http"] == port, "worker: not the port that it listens on")
            expect(pod["terminationGracePeriodSeconds"] > grace_s, "worker: killed before it has drained")

for one in named("PodDisruptionBudget"):
    wanted = one["spec"]["selector"]["matchLabels"]
    pods = [o for o in objects if "template" in o.get("spec", {}) and wanted.items() <= o["spec"]["template"]["metadata"]["labels"].items()]
    expect(len(pods) == 1, f"PodDisruptionBudget {one['metadata']['name']}: protects nothing")

for one in named("Deployment") + named("StatefulSet") + named("Job"):
    name, labels = one["metadata"]["name"], one["spec"]["template"]["metadata"]["labels"]
    policies = [p for p in named("NetworkPolicy") if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]
    expect(len(policies) == 1, f"{name}: {len(policies)} network policies")
    ports = {p["name"] for c in one["spec"]["template"]["spec"]["containers"] for p in c.get("ports", [])}
    for policy in policies:
        spec = policy["spec"]
        expect(set(spec["policyTypes"]) == {"Ingress", "Egress"}, f"{name}: open on one side")
        opened = [port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]]
        expect(sorted(opened) == sorted(ports), f"{name}: the policy opens {opened}, its ports are {sorted(ports)}")
        expect(all(rule.get("from") for rule in spec.get("ingress", [])), f"{name}: open to everybody")
        for block in (to["ipBlock"] for rule in spec["egress"] for to in rule["to"] if "ipBlock" in to):
            expect(block.get("except"), f"{name}: may ask the machine for credentials")

database = config["database"]["url"]
expect("sslmode=verify-full" in database, "database.url: not encrypted, or to anybody")

(scaled,) = named("ScaledObject")
expect(named("Deployment", scaled["spec"]["scaleTargetRef"]["name"]), "ScaledObject: scales nothing")
expect(sorted(t["metadata"]["consumer"] for t in scaled["spec"]["triggers"]) == sorted(f"stage_{s}" for s in STAGES), "ScaledObject: not every stage")
names = (root / "src/bus/nats/names.rs").read_text()
for trigger in scaled["spec"]["triggers"]:
    about = trigger["metadata"]
    host, _, at = about["natsServerMonitoringEndpoint"].partition(":")
    (service,) = named("Service", host)
    expect(int(at) in [p["port"] for p in service["spec"]["ports"]], "ScaledObject: no such port")
    expect(f'"{about["consumer"]}"' in names and '_EVENTS"' in names, f"ScaledObject: {about['consumer']} is no consumer of ours")
    expect(f"{about['account']} {{" in (root / "deploy/nats/accounts.conf").read_text(), "ScaledObject: no such account")
for server in config["nats"]["url"].split(","):
    expect(server.removeprefix("tls://").split(".")[1].split(":")[0] == named("Service")[0]["metadata"]["name"], f"no server at {server}")

print("\n".join(mistakes) or f"{len(objects)} objects are as they should be")
sys.exit(bool(mistakes))
