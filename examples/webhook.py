#!/usr/bin/env python3
"""Takes alarms of Satchel and prints them, if they are signed with the secret.

    satchel alarm add webhook http://127.0.0.1:8099/ --secret-fd 3 3<secret
    webhook.py 8099 secret

The second argument is a file with the secret, in one line. It needs no library.
docs/alarms.md says what is in a message.
"""
import hashlib
import hmac
import http.server
import json
import re
import sys
import time

port, secret = int(sys.argv[1]), open(sys.argv[2], "rb").read().rstrip(b"\r\n")
seen = []  # ids, so that what is sent twice is taken once


def signed(header: str, body: bytes) -> bool:
    match = re.fullmatch(r"t=(\d{1,12}),v1=([0-9a-f]{64})", header)
    if not match or abs(time.time() - int(match[1])) > 300:
        return False
    want = hmac.new(secret, match[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(want, match[2])


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 60  # seconds that a sender may be silent

    def do_POST(self):
        length = self.headers.get("Content-Length") or ""
        if not re.fullmatch(r"[0-9]{1,7}", length) or int(length) > 1 << 20:
            self.send_error(400)  # A negative one would read until the other side hangs up.
            return
        body = self.rfile.read(int(length))
        if not signed(self.headers.get("Satchel-Signature") or "", body):
            self.send_error(403)
            return
        message = json.loads(body)
        if message["id"] not in seen:
            seen.append(message["id"])
            del seen[:-100]
            print(message["subject"], message["text"], sep="\n", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
print("ready at port", server.server_address[1], flush=True)
server.serve_forever()
