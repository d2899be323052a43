#!/usr/bin/env python3
"""How a program in another language backs up through the agent of Satchel.

It needs nothing but Python 3. docs/agent.md says what is said over the socket.

    agent.py status                      how the wallets of this device stand
    agent.py put WALLET NAME < FILE      save an item, and wait until it is protected
    agent.py get WALLET NAME > FILE      what this device has of an item
    agent.py events                      what happens, as it happens
"""

import base64
import http.client
import json
import os
import socket
import sys
import urllib.parse


class AgentError(Exception):
    """The agent said no. code is the exit code that the command satchel would end with."""

    def __init__(self, status, answer):
        super().__init__(answer.get("error", "the agent gave no reason"))
        self.status, self.code, self.hint = status, answer.get("code", 1), answer.get("hint", "")


class Connection(http.client.HTTPConnection):
    """HTTP over the socket of the agent, which only its user can open."""

    def __init__(self, path, timeout):
        super().__init__("satchel", timeout=timeout)  # The agent refuses every other host.
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def socket_path():
    home = os.environ.get("SATCHEL_HOME")
    if not home and sys.platform == "darwin":
        home = os.path.expanduser("~/Library/Application Support/Satchel")
    if not home:
        data = os.environ.get("XDG_DATA_HOME", "")
        if not os.path.isabs(data):
            data = os.path.expanduser("~/.local/share")
        home = os.path.join(data, "satchel")
    return os.path.join(home, "agent", "control.sock")


class Agent:
    def __init__(self, path=None):
        self.path = path or socket_path()

    def request(self, method, path, body=None, timeout=120):
        # An agent that hangs must not hang the program: timeout is in seconds, for each
        # answer, or part of one, to come. A stream of events has a line every 30 seconds.
        connection = Connection(self.path, timeout)
        headers = {}
        if body is not None:
            body = json.dumps(body).encode()
        if method == "POST":
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        if response.status >= 300:
            raise AgentError(response.status, json.loads(response.read()))
        return response

    def wallets(self):
        return json.loads(self.request("GET", "/v1/wallets").read())["wallets"]

    def put(self, wallet, items, timeout="60s"):
        """Saves items, a dict of names and bytes, all of them or none.

        When it returns they are safe on this device. Whether they are in the cloud, read
        back and compared, "protected" in the answer says: it waits for that so long.
        """
        items = [{"name": n, "value": base64.b64encode(v).decode()} for n, v in items.items()]
        path = "/v1/wallets/%s/put?wait=protected&timeout=%s" % (urllib.parse.quote(wallet, ""), timeout)
        # A place that begins to hang may delay it by minutes, before the wait begins.
        return json.loads(self.request("POST", path, {"items": items}, timeout=1800).read())

    def get(self, wallet, name):
        path = "/v1/wallets/%s/item?name=%s" % (urllib.parse.quote(wallet, ""), urllib.parse.quote(name, ""))
        return self.request("GET", path).read()

    def events(self, since=None):
        """Yields events for ever. After a break, since is the id of the last one that was seen."""
        path = "/v1/events" + ("" if since is None else "?since=%d" % since)
        for line in self.request("GET", path):
            yield json.loads(line)


def main(args):
    agent = Agent()
    if args == ["status"]:
        for wallet in agent.wallets():
            status = wallet["status"] or {}
            print(wallet["name"], wallet["state"], "protected" if status.get("protected") else "NOT protected")
    elif len(args) == 3 and args[0] == "put":
        answer = agent.put(args[1], {args[2]: sys.stdin.buffer.read()})
        print("generation %d: %s" % (answer["generation"], "protected" if answer["protected"] else "safe on this device, not protected yet"))
        return 0 if answer["protected"] else 3
    elif len(args) == 3 and args[0] == "get":
        sys.stdout.buffer.write(agent.get(args[1], args[2]))
    elif args == ["events"]:
        for event in agent.events():
            print(json.dumps(event), flush=True)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AgentError as error:
        print("agent: %s" % error, file=sys.stderr)
        sys.exit(error.code)
    except TimeoutError:
        print("agent: no answer in time; what was put may be kept or not: put it again", file=sys.stderr)
        sys.exit(1)
    except (FileNotFoundError, ConnectionRefusedError):
        print("agent: none is running for this user", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
