"""The publisher of a chaos run, with a ledger: chaos_publish.py PLAN.json

Publishes the turns of many sessions, in order within each session, as an ordinary NATS client does: a publish that is not
acknowledged is tried again under the same id until it is, or until `give_up_s` have passed; then nobody knows, and the
ledger says so. Some are published once more later, without `Nats-Msg-Id`, as careless publishers do.

    {"url", "namespace", "prefix", "seed", "sessions", "turns", "per_second", "give_up_s"}

Prints {"ledger": [{"id", "session", "turn", "state": "acked" | "unknown", "tries", "sequence", "at"}], "repeated": n}.
"""

import asyncio
import json
import random
import sys
import time

import nats
from nats.js.errors import APIError, NoStreamResponseError

TRY_S = 2.0
AGAIN_S = 0.1
REPEATED = 0.05


async def publish(jetstream, subject, body, headers, give_up_at):
    """The acknowledged sequence, or None, and how many tries it took."""
    tries = 0
    while True:
        tries += 1
        try:
            ack = await jetstream.publish(subject, body, headers=headers, timeout=TRY_S)
            return ack.seq, tries
        except (nats.errors.Error, APIError, NoStreamResponseError, asyncio.TimeoutError, OSError):
            if time.time() > give_up_at:
                return None, tries
            await asyncio.sleep(AGAIN_S)


async def expected(_):
    """Lost connections are what this is about."""


async def main(plan):
    chance = random.Random(plan["seed"])
    connection = await nats.connect(plan["url"], max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=expected)
    jetstream = connection.jetstream()
    subject = f"{plan['namespace']}.v1.user_input_received"
    ledger, bodies, repeated = [], [], 0
    for turn in range(plan["turns"]):
        sessions = list(range(plan["sessions"]))
        chance.shuffle(sessions)
        for session in sessions:
            began = time.time()
            workflow = f"{plan['prefix']}-s{session}-t{turn}"
            body = json.dumps({
                "user_id": "demo", "session_id": f"{plan['prefix']}-s{session}", "workflow_id": workflow,
                "user_input": f"Question {turn} ({workflow})",
            }).encode()
            sequence, tries = await publish(jetstream, subject, body, {"Nats-Msg-Id": workflow}, began + plan["give_up_s"])
            ledger.append({
                "id": workflow, "session": session, "turn": turn, "state": "unknown" if sequence is None else "acked",
                "tries": tries, "sequence": sequence, "at": began,
            })
            bodies.append(body)
            if chance.random() < REPEATED:
                again, _ = await publish(jetstream, subject, chance.choice(bodies), None, time.time() + plan["give_up_s"])
                repeated += again is not None
            await asyncio.sleep(max(0.0, began + 1 / plan["per_second"] - time.time()))
    json.dump({"ledger": ledger, "repeated": repeated}, sys.stdout)
    await connection.close()


with open(sys.argv[1], encoding="utf-8") as file:
    asyncio.run(main(json.load(file)))
