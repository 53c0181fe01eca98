"""An independent client that listens as the README says: to what the log has stored, with a plain subscription.

    listen.py URL NAMESPACE ENDS LIMIT_S

Says `listening` on stderr, and prints what it heard, in this order, once so many workflows have ended: a JSON array of
{"subject", "sequence", "workflow"}.
"""

import asyncio
import json
import sys

import nats


async def main(url, namespace, ends, limit_s):
    connection = await nats.connect(url)
    heard, done = [], asyncio.Event()

    async def hear(message):
        event = json.loads(message.data)
        subject = message.subject
        heard.append({"subject": subject, "sequence": int(message.headers["Nats-Sequence"]), "workflow": event.get("workflowid")})
        if sum(one["subject"].split(".")[3] in ("interaction_saved", "workflow_failed") for one in heard) >= int(ends):
            done.set()

    await connection.subscribe(f"{namespace}.stored.v1.>", cb=hear)
    await connection.flush()
    print("listening", file=sys.stderr, flush=True)
    try:
        await asyncio.wait_for(done.wait(), float(limit_s))
    except asyncio.TimeoutError:
        print("not every workflow ended in time", file=sys.stderr)
    # What would be told twice is told by now.
    await connection.flush()
    await asyncio.sleep(0.5)
    await connection.close()
    json.dump(heard, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
