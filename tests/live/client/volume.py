"""Many workflows through a small log, with workers killed at random: volume.py PLAN.json

Starts a nats-server, the stand-ins and the workers, publishes as an ordinary NATS client, and listens to ends as they are published.
Then it counts: rows by another SQLite, archives by another reader.

    {"binary", "nats_server", "folder", "seed", "workflows", "body_bytes", "log_mib", "open", "turns", "workers", "kill_every_s", "wait_s"}

Prints a report as JSON. Exit code 0 if every input was taken, every workflow ended once, every row is there and no message is
missing from the log and the archives together; else 1.
"""

import asyncio
import collections
import gzip
import json
import os
import pathlib
import random
import re
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time

import nats

NAMESPACE = "throughline"
# Sessions that are under way at the same time.
SESSIONS = 1_000
SAMPLE_S = 5.0
READY_S = 30.0
# Archives that are verified as recordings.
VERIFIED = 5
WORDS = "where is my order status refund invoice please tell about the delivery of chair lamp desk sofa shelf today".split()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident_mib(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Deployment:
    def __init__(self, plan):
        self.plan, self.folder, self.chance = plan, pathlib.Path(plan["folder"]), random.Random(plan["seed"])
        self.workers, self.started, self.killed, self.dead = [], 0, 0, []
        self.url = f"nats://127.0.0.1:{free_port()}"
        self.nats = self.spawn("nats", [plan["nats_server"], "-js", "-a", "127.0.0.1", "-p", self.url.rsplit(":", 1)[1],
                                        "-sd", str(self.folder / "jetstream")])
        sandbox = subprocess.Popen([plan["binary"], "sandbox"], stdout=subprocess.PIPE, stderr=self.log("sandbox"), text=True)
        self.sandbox, lines = sandbox, []
        for line in sandbox.stdout:
            lines.append(line)
            if line.startswith("model ="):
                break
        self.config = self.folder / "throughline.toml"
        self.config.write_text("".join(lines) + f'''
[nats]
url = "{self.url}"
max_bytes_mib = {plan["log_mib"]}
[database]
url = "sqlite://{self.folder}/throughline.db"
[retention]
archive = "file:{self.folder}/archives"
''')

    def log(self, name):
        return open(self.folder / f"{name}.err", "ab")

    def spawn(self, name, arguments):
        return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=self.log(name))

    def throughline(self, name, *arguments):
        return self.spawn(name, [self.plan["binary"], "--config", str(self.config), *arguments])

    def add_worker(self):
        self.workers.append(self.throughline(f"worker{self.started}", "worker"))
        self.started += 1

    def kill_one(self):
        place = self.chance.randrange(len(self.workers))
        worker = self.workers.pop(place)
        if worker.poll() is not None:
            self.dead.append(f"a worker ended by itself with {worker.returncode}")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        self.killed += 1
        self.add_worker()

    def stop(self):
        for process in [*self.workers, self.sandbox]:
            process.send_signal(signal.SIGTERM)
        for process in [*self.workers, self.sandbox]:
            process.wait(60)
        self.nats.send_signal(signal.SIGTERM)
        self.nats.wait(60)


async def expected(_):
    """The server may not listen yet."""


async def connect(url):
    until = time.time() + READY_S
    while True:
        try:
            return await nats.connect(url, error_cb=expected)
        except (OSError, nats.errors.Error):
            if time.time() > until:
                raise
            await asyncio.sleep(0.1)


async def run(plan):
    deployment = Deployment(plan)
    connection = await connect(deployment.url)
    if deployment.throughline("setup", "setup").wait(60) != 0:
        sys.exit("setup failed; see setup.err")
    for _ in range(plan["workers"]):
        deployment.add_worker()
    jetstream = connection.jetstream(publish_async_max_pending=plan["open"])
    ends, again, failed, refused = set(), [], [], []
    slots, samples, began = asyncio.Semaphore(plan["open"]), [], time.time()
    latest, pattern = time.time(), re.compile(rb'"workflowid":"([^"]+)"')

    async def ended(message):
        nonlocal latest
        latest = time.time()
        workflow = pattern.search(message.data).group(1).decode()
        if workflow in ends:
            again.append(workflow)
            return
        ends.add(workflow)
        if "workflow_failed" in message.subject:
            failed.append([workflow, json.loads(message.data)["data"]["code"]])
        slots.release()

    async def disturb():
        while True:
            await asyncio.sleep(plan["kill_every_s"] * deployment.chance.uniform(0.5, 1.5))
            deployment.kill_one()

    async def look():
        while True:
            await asyncio.sleep(SAMPLE_S)
            samples.append({
                "s": round(time.time() - began), "ended": len(ends), "nats_mib": resident_mib(deployment.nats),
                "workers_mib": max(resident_mib(worker) for worker in deployment.workers),
            })
            if len(samples) % 12 == 0:
                print(samples[-1], file=sys.stderr, flush=True)

    for kind in ("interaction_saved", "workflow_failed"):
        # On the log's own subjects a subscriber also hears what a full log has refused.
        await connection.subscribe(f"{NAMESPACE}.stored.v1.{kind}.>", cb=ended, pending_msgs_limit=-1, pending_bytes_limit=-1)
    text = " ".join(random.Random(plan["seed"]).choices(WORDS, k=plan["body_bytes"] // 5))
    tasks = [asyncio.create_task(disturb()), asyncio.create_task(look())]
    subject = f"{NAMESPACE}.v1.user_input_received"

    async def publish(number):
        block, place = divmod(number, plan["turns"] * SESSIONS)
        workflow = f"v{number}"
        body = json.dumps({"user_id": "demo", "session_id": f"s{block}-{place % SESSIONS}",
                           "workflow_id": workflow, "user_input": f"{workflow} {text}"}).encode()
        try:
            await jetstream.publish(subject, body, headers={"Nats-Msg-Id": workflow}, timeout=30)
        except Exception as error:  # noqa: BLE001: whatever it is, the input was not taken
            refused.append([workflow, repr(error)])
            slots.release()

    pending = set()
    for number in range(plan["workflows"]):
        await slots.acquire()
        task = asyncio.create_task(publish(number))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    while len(ends) + len(refused) < plan["workflows"] and time.time() < latest + plan["wait_s"]:
        await asyncio.sleep(0.2)
    took = time.time() - began
    for task in tasks:
        task.cancel()
    stream = (await jetstream.stream_info(f"{NAMESPACE}_EVENTS"))
    state = {"first": stream.state.first_seq, "last": stream.state.last_seq, "bytes": stream.state.bytes,
             "deleted": stream.state.num_deleted or 0}
    await connection.close()
    deployment.stop()
    return deployment, {
        "workflows": plan["workflows"], "took_s": round(took, 1), "per_s": round(plan["workflows"] / took, 1),
        "killed": deployment.killed, "refused": refused[:20], "refused_count": len(refused), "failed": failed[:20], "failed_count": len(failed),
        "without_end": plan["workflows"] - len(ends) - len(refused), "ended_again": again[:20], "log": state, "dead": deployment.dead,
        "memory": memory(samples),
    }


def memory(samples):
    """Medians of the tenths of the run, in MiB."""
    tenth = max(1, len(samples) // 10)
    parts = [samples[place:place + tenth] for place in range(0, len(samples), tenth)]
    return {name: [round(statistics.median(sample[name] for sample in part)) for part in parts]
            for name in ("workers_mib", "nats_mib")}


def rows(folder):
    database = sqlite3.connect(f"file:{folder}/throughline.db?mode=ro", uri=True)
    states = dict(database.execute("SELECT state, count(*) FROM turns GROUP BY state"))
    return {"interactions": database.execute("SELECT count(*) FROM interactions").fetchone()[0], "turns": states}


def archives(folder, first):
    """What the archives hold of the messages before `first`, read line by line."""
    held, ranges, broken = collections.Counter(), [], []
    folder = pathlib.Path(folder) / "archives"
    for path in sorted(folder.glob("throughline-*.jsonl.gz")):
        begin, end = map(int, path.name.removeprefix("throughline-").removesuffix(".jsonl.gz").split("-"))
        ranges.append((begin, end, path))
        try:
            with gzip.open(path, "rb") as lines:
                for line in lines:
                    found = re.search(rb'"sequence":(\d+)', line)
                    if found:
                        held[int(found.group(1))] += 1
        except (OSError, EOFError) as error:
            broken.append(f"{path.name}: {error!r}")
    missing = [sequence for sequence in range(1, first) if sequence not in held]
    return {"files": len(ranges), "bytes": sum(path.stat().st_size for *_, path in ranges), "broken": broken,
            "missing": len(missing), "missing_first": missing[:20]}, [path for *_, path in ranges]


def main(path):
    plan = json.loads(pathlib.Path(path).read_text())
    os.makedirs(plan["folder"], exist_ok=True)
    deployment, report = asyncio.run(run(plan))
    report["rows"] = rows(plan["folder"])
    report["archives"], files = archives(plan["folder"], report["log"]["first"])
    report["verified"] = []
    for file in random.Random(plan["seed"]).sample(files, min(VERIFIED, len(files))):
        verify = subprocess.run([plan["binary"], "--config", str(deployment.config), "replay", "verify", "--file", str(file)],
                                capture_output=True, text=True, timeout=600)
        report["verified"].append([file.name, verify.returncode, verify.stdout.strip().splitlines()[-1:]])
    json.dump(report, sys.stdout, indent=1)
    print()
    saved = report["rows"]["turns"].get("saved", 0)
    good = (not report["refused_count"] and not report["without_end"] and not report["ended_again"] and not report["failed_count"]
            and report["rows"]["interactions"] == saved == plan["workflows"] and not report["archives"]["missing"]
            and not report["archives"]["broken"] and not report["dead"])
    sys.exit(0 if good else 1)


main(sys.argv[1])
