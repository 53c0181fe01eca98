"""The model of a chaos run, with a ledger: chaos_model.py SEED FAULT_PERCENT

Says on stdout where it listens and speaks chat completions, whole and streamed. How long it takes and whether it fails is a
function of the seed, the workflow named in the last message and how often that workflow has been asked. The key tells which
worker asks. `GET /ledger` lists every call in order: {"id", "worker", "began", "ended", "fate"}, where the fate is
`answered`, a fault (`503`, `429`, `cut`), `gone` if the caller hung up, and null while it is under way.
`POST /calm` ends the faults.
"""

import http.server
import json
import random
import re
import socket
import sys
import threading
import time

SEED, PERCENT = int(sys.argv[1]), float(sys.argv[2])
WORKFLOW = re.compile(r"\((\S+-s\d+-t\d+)\)")
LEDGER, ASKED, LOCK, CALM = [], {}, threading.Lock(), threading.Event()


class Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with LOCK:
            body = json.dumps(LEDGER).encode()
        self.whole(200, body)

    def do_POST(self):
        request = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/calm":
            CALM.set()
            return self.whole(200, b"{}")
        request = json.loads(request)
        workflow = WORKFLOW.search(request["messages"][-1]["content"])[1]
        worker = self.headers.get("authorization", "").removeprefix("Bearer ")
        with LOCK:
            time_asked = ASKED[workflow] = ASKED.get(workflow, 0) + 1
            call = {"id": workflow, "worker": worker, "began": time.time(), "ended": None, "fate": None}
            LEDGER.append(call)
        chance = random.Random(f"{SEED} {workflow} {time_asked}")
        delay = chance.uniform(0.05, 0.4)
        fault = chance.choice(["503", "429", "cut"]) if chance.random() * 100 < PERCENT and not CALM.is_set() else None
        time.sleep(delay)
        try:
            self.answer(request, workflow, fault)
            fate = fault or "answered"
            if not fault and self.hung_up():
                fate = "gone"
        except OSError:
            fate = "gone"
        with LOCK:
            call |= {"ended": time.time(), "fate": fate}

    def hung_up(self):
        """Whether the caller is gone although everything could be written."""
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.setblocking(True)

    def answer(self, request, workflow, fault):
        if fault in ("503", "429"):
            error = {"message": "chaos", "type": "server_error", "param": None, "code": None}
            more = {"retry-after": "1"} if fault == "429" else {}
            return self.whole(int(fault), json.dumps({"error": error}).encode(), more)
        words = f"Answer to {workflow}.".split(" ")
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        base = {"id": "chatcmpl-1", "created": 1, "model": request["model"]}
        if not request.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = json.dumps(base | {"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            if fault == "cut":
                self.head(200, len(body))
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return None
            return self.whole(200, body)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        chunk = base | {"object": "chat.completion.chunk"}
        for n, word in enumerate(words):
            if fault == "cut" and n == 2:
                return None
            delta = {"content": word if n == 0 else f" {word}"}
            self.event(chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.event(chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.event(chunk | {"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def event(self, event):
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def head(self, status, length, more=()):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(length))
        for name, value in dict(more).items():
            self.send_header(name, value)
        self.end_headers()

    def whole(self, status, body, more=()):
        self.head(status, len(body), more)
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """A caller that was killed is not worth a traceback."""


server = Server(("127.0.0.1", 0), Model)
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
