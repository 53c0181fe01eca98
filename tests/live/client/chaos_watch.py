"""Watches the ends of a chaos run as they are published: chaos_watch.py URL NAMESPACE DATABASE

When `interaction_saved` is heard, its row must be in the database. Runs until it is terminated, then prints
{"heard": n, "without_row": [workflow ids]}. What is published while the connection is down is not heard, and not judged here.
"""

import asyncio
import json
import signal
import sqlite3
import sys

import nats


async def expected(_):
    """Lost connections are what this is about."""


async def main(url, namespace, path):
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    heard, without_row, done = 0, [], asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    connection = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=expected)

    async def on_end(message):
        nonlocal heard
        heard += 1
        workflow = json.loads(message.data)["workflowid"]
        if not database.execute("SELECT 1 FROM interactions WHERE workflow_id = ?", (workflow,)).fetchone():
            without_row.append(workflow)

    await connection.subscribe(f"{namespace}.v1.interaction_saved.>", cb=on_end)
    await connection.flush()
    print("watching", file=sys.stderr, flush=True)
    await done.wait()
    json.dump({"heard": heard, "without_row": without_row}, sys.stdout)
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
