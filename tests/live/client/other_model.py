"""A model that is not Throughline's stand-in: says on stdout where it listens, speaks chat completions.

Its answer tells what it was sent: the model's name, whether the key was right, and whether the prompt named an order.
A question with the word "refuse" in it gets a 401 that repeats the key, as careless servers do.
"""

import http.server
import json
import os
import sys

KEY = os.environ["EXPECTED_KEY"]


class Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = json.dumps(request["messages"])
        key = "right" if self.headers.get("authorization") == f"Bearer {KEY}" else "wrong"
        if self.path != "/v1/chat/completions":
            return self.answer(404, {"error": {"message": "no such path", "type": "invalid_request_error", "param": None, "code": None}})
        if "refuse" in request["messages"][-1]["content"]:
            message = f"Incorrect API key provided: {KEY}."
            return self.answer(401, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}})
        text = f"other model {request['model']}, key {key}, order {'seen' if '#W10007' in prompt else 'not seen'}"
        return self.answer(200, {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        })

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
sys.stdout.close()
server.serve_forever()
