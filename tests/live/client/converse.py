"""An independent client: publishes user input in each accepted form and reads the events that follow.

Shares no code with Throughline and knows only what its users are told. The plan is JSON on stdin:

    {"url": "nats://…", "namespace": "throughline", "ends": 3, "limit_s": 30, "messages": [
        {"form": "bare" | "structured" | "binary", "user": …, "session": …, "text": …,
         "id": …, "id_in": "data" | "event" | "header" | null, "ids_in": "data" | "event",
         "traceparent": … | null, "tokens": true | false, "metadata": {…} | null}]}

Prints {"events": […], "dead": […]} once `ends` workflows have ended, or what there is after `limit_s`.
"""

import asyncio
import json
import sys
from urllib.parse import quote

import nats

ENDS = ("interaction_saved", "workflow_failed")


def compose(namespace, message):
    """Subject, headers and body of one message."""
    headers = {}
    data = {"user_input": message["text"]}
    if message["ids_in"] == "data":
        data |= {"user_id": message["user"], "session_id": message["session"]}
    if message["id_in"] == "data":
        data["workflow_id"] = message["id"]
    if message["metadata"] is not None:
        data["metadata"] = message["metadata"]
    if message["id_in"] == "header":
        headers["Nats-Msg-Id"] = message["id"]

    attributes = {
        "specversion": "1.0",
        "id": message["id"],
        "source": "/tests/independent client",
        "type": "user_input_received",
        "time": "2026-01-02T03:04:05Z",
    }
    if message["ids_in"] == "event":
        attributes |= {"userid": message["user"], "sessionid": message["session"]}

    if message["form"] == "structured":
        if message["traceparent"]:
            attributes["traceparent"] = message["traceparent"]
        headers["Content-Type"] = "application/cloudevents+json; charset=utf-8"
        body = attributes | {"datacontenttype": "application/json", "data": data}
    elif message["form"] == "binary":
        if message["traceparent"]:
            attributes["traceparent"] = message["traceparent"]
        attributes["datacontenttype"] = "application/json"
        headers |= {f"ce-{name}": quote(value, safe="!#$&'()*+,-./:;<=>?@[]^_`{|}~") for name, value in attributes.items()}
        body = data
    else:
        if message["traceparent"]:
            headers["traceparent"] = message["traceparent"]
        body = data

    subject = f"{namespace}.v1.user_input_received"
    if message["tokens"]:
        subject += f".{message['session']}.{message['id']}"
    return subject, headers, json.dumps(body).encode()


def record(message):
    try:
        event = json.loads(message.data)
    except ValueError:
        event = None
    return {
        "subject": message.subject,
        "sequence": message.metadata.sequence.stream,
        "headers": dict(message.headers or {}),
        "event": event,
    }


async def follow(stream, into, changed):
    async for message in stream.messages:
        into.append(record(message))
        changed.set()


async def main(plan):
    connection = await nats.connect(plan["url"])
    try:
        jetstream = connection.jetstream()
        namespace, events, dead, changed = plan["namespace"], [], [], asyncio.Event()
        followers = []
        for subject, into in ((f"{namespace}.v1.>", events), (f"{namespace}.dead.v1.>", dead)):
            stream = await jetstream.subscribe(subject, ordered_consumer=True)
            followers.append(asyncio.create_task(follow(stream, into, changed)))
        for message in plan["messages"]:
            subject, headers, body = compose(namespace, message)
            await jetstream.publish(subject, body, headers=headers or None)

        async def all_ended():
            while sum(e["subject"].split(".")[2] in ENDS for e in events) < plan["ends"]:
                changed.clear()
                await changed.wait()

        try:
            await asyncio.wait_for(all_ended(), plan["limit_s"])
        except asyncio.TimeoutError:
            print("not every workflow ended in time", file=sys.stderr)
        for follower in followers:
            follower.cancel()
        json.dump({"events": events, "dead": dead}, sys.stdout)
    finally:
        await connection.close()


asyncio.run(main(json.load(sys.stdin)))
