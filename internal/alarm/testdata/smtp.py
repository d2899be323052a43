# A mail server on 127.0.0.1 for TestMailServer, made of Debian's aiosmtpd:
#
#	smtp.py PORT plain|starttls|tls [CERTIFICATE KEY]
#
# It prints a line when it is ready, and then each message as a line of JSON. With
# TLS it wants to be signed in to as sam, with the password that is below.

import json
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


class Handler:
    async def handle_DATA(self, server, session, envelope):
        print(json.dumps({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode(),
            "helo": session.host_name,
            "tls": session.ssl is not None,
            "user": session.authenticated,
        }), flush=True)
        return "250 taken"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 ok"


def authenticate(server, session, envelope, mechanism, data):
    ok = isinstance(data, LoginPassword) and data.login == b"sam" and data.password == b"correct horse"
    return AuthResult(success=ok, handled=False) # the library answers


port, mode = int(sys.argv[1]), sys.argv[2]
more = {}
if mode != "plain":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    more = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": mode == "starttls"}
if mode == "starttls":
    more |= {"tls_context": context, "require_starttls": True}
if mode == "tls":
    more |= {"ssl_context": context}
Controller(Handler(), hostname="127.0.0.1", port=port, ready_timeout=60, **more).start()
print("ready", flush=True)
threading.Event().wait()
