"""Asks a question and prints the answer as it comes: python ask.py USER SESSION WORKFLOW_ID QUESTION (needs nats-py)"""
import asyncio, hashlib, json, os, re, sys
import nats

def token(name):  # An id stands in subjects as it is, if it is plain, else as a hash.
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) else "h" + hashlib.sha256(name.encode()).hexdigest()

async def ask(nc, user, session, workflow, question, ns="throughline", hear=lambda frame: None):
    js, ended = nc.jetstream(), asyncio.Queue()
    ends = [f"{kind}.{token(session)}.{token(workflow)}" for kind in ("interaction_saved", "workflow_failed")]
    async def live(message): hear(json.loads(message.data))
    await nc.subscribe(f"{ns}.live.{token(workflow)}", cb=live)  # optional: the answer as it comes, and what is waited for
    for end in ends:
        await nc.subscribe(f"{ns}.stored.v1.{end}", cb=ended.put)
    message = {"user_id": user, "session_id": session, "workflow_id": workflow, "user_input": question}
    await js.publish(f"{ns}.v1.user_input_received", json.dumps(message).encode())  # harmless to repeat: it runs once
    while ended.empty():  # It may have ended before, or while the connection was down: then the log has the end.
        for end in ends:
            found = await nc.request(f"$JS.API.DIRECT.GET.{ns}_EVENTS.{ns}.v1.{end}", timeout=5)
            if "Status" not in (found.headers or {}): await ended.put(found)  # 404: not yet
        try: await ended.put(await asyncio.wait_for(ended.get(), 10))
        except asyncio.TimeoutError: pass
    event = json.loads((await ended.get()).data)
    if "dataref" in event:  # larger than 512 KiB: nats-object://BUCKET/NAME
        bucket, name = event["dataref"].split("/")[-2:]
        event = json.loads((await (await js.object_store(bucket)).get(name)).data)
    return event["type"], event["data"]

async def main(user, session, workflow, question):
    def hear(frame):  # After another attempt has begun, what was heard before does not count.
        if frame["kind"] == "text": print(frame["text"], end="", flush=True, file=sys.stderr)
        if "again_in_ms" in frame: print(f"\n[{frame['kind']}: {frame.get('reason')}]", file=sys.stderr)
    nc = await nats.connect(os.getenv("NATS_URL", "nats://127.0.0.1:4222"), inbox_prefix=os.getenv("NATS_INBOX_PREFIX", "_INBOX"))
    kind, data = await ask(nc, user, session, workflow, question, hear=hear)
    await nc.close()
    if kind == "workflow_failed": sys.exit(f"\n{data['code']} in {data['stage']}: {data['message']}")
    print("\n" + data["response"]["text"], *[f"(without the data of {source})" for source in data.get("degraded", [])])

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
