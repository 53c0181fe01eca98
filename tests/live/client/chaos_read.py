"""Reads the event log after a chaos run: chaos_read.py PLAN.json

Reads every stream that holds events or dead letters, from its beginning to its end, until each workflow of `ids` has ended or
`limit_s` have passed.

    {"url", "namespace", "ids": [...], "limit_s"}

Prints {"events": [{"workflow", "type", "stream", "sequence", "at"}], "dead": [{"subject", "reason"}]}, in the order of the streams.
"""

import asyncio
import json
import sys
import time

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

ENDS = ("interaction_saved", "workflow_failed")
FETCH = 500
FETCH_S = 1.0


async def cursors(jetstream, namespace):
    """A cursor on each stream that holds events."""
    found = []
    for info in await jetstream.streams_info():
        of_ours = [s for s in info.config.subjects or [] if s.startswith((f"{namespace}.v1", f"{namespace}.dead"))]
        if of_ours:
            config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=300)
            consumer = await jetstream.pull_subscribe("", stream=info.config.name, config=config)
            found.append((info.config.name, consumer))
    return found


async def expected(_):
    """Lost connections are what this is about."""


async def main(plan):
    connection = await nats.connect(plan["url"], max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=expected)
    wanted, events, dead = set(plan["ids"]), [], []
    give_up_at = time.time() + plan["limit_s"]
    streams = await cursors(connection.jetstream(), plan["namespace"])
    quiet = dict.fromkeys((name for name, _ in streams), 0)

    def take(stream, message):
        kind = message.subject.split(".")[1:3]
        if kind[0] == "dead":
            dead.append({"subject": message.subject, "reason": dict(message.headers or {})})
            return
        try:
            body = json.loads(message.data)
        except ValueError:
            return
        workflow = body.get("workflowid") or body.get("workflow_id")
        events.append({
            "workflow": workflow, "type": kind[1], "stream": stream,
            "sequence": message.metadata.sequence.stream, "at": message.metadata.timestamp.timestamp(),
        })
        if kind[1] in ENDS:
            wanted.discard(workflow)

    def finished():
        # Each stream is read to its end, however long that takes; the limit is for what is not there yet. Once everything
        # has ended, two more looks: what comes after an end must not.
        return min(quiet.values()) >= 2 and (not wanted or time.time() > give_up_at)

    async def follow(stream, consumer):
        while not finished():
            try:
                messages = await consumer.fetch(FETCH, timeout=FETCH_S)
            except (nats.errors.TimeoutError, asyncio.TimeoutError):
                quiet[stream] += 1
                continue
            quiet[stream] = 0
            for message in messages:
                take(stream, message)

    await asyncio.gather(*(follow(stream, consumer) for stream, consumer in streams))
    order = {stream: place for place, (stream, _) in enumerate(streams)}
    events.sort(key=lambda event: (order[event["stream"]], event["sequence"]))
    json.dump({"events": events, "dead": dead}, sys.stdout)
    await connection.close()


with open(sys.argv[1], encoding="utf-8") as file:
    asyncio.run(main(json.load(file)))
