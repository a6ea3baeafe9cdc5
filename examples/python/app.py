"""An application in Python behind Insula's gateway: every request has its tenant, proven, or is refused.

    pip install -r requirements.txt
    INSULA_JWKS_URL=http://127.0.0.1:PORT/.well-known/jwks.json INSULA_CELL=main python app.py

The gateway puts a signed token into the header `Insula-Tenant-Context`; a client's own copy never gets through. The token is a JWT
(EdDSA), good for 45 seconds and for the applications of one cell.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

HEADER = "Insula-Tenant-Context"
AUDIENCE = f"insula-app:{os.environ['INSULA_CELL']}"
# Fetched once and kept; a key id that is not known is looked for again.
KEYS = jwt.PyJWKClient(os.environ["INSULA_JWKS_URL"], cache_keys=True, lifespan=300, timeout=3)


class Refused(Exception):
    """The request has no tenant that is proven."""


def tenant_context(headers):
    """The claims of the one tenant context that holds: `tid`, `slug`, `plan`, and, when somebody is logged in, `sub` and `scope`."""
    tokens = headers.get_all(HEADER) or []
    if len(tokens) != 1:
        raise Refused("no tenant context, or more than one")
    token = tokens[0]
    try:
        if jwt.get_unverified_header(token).get("typ") != "insula-context+jwt":
            raise Refused("another kind of token")
        return jwt.decode(
            token,
            KEYS.get_signing_key_from_jwt(token),
            algorithms=["EdDSA"],  # and no other, whatever the token says
            audience=AUDIENCE,
            issuer="insula-gateway",
            leeway=5,
            options={"require": ["exp", "iat", "iss", "aud", "tid", "slug"]},
        )
    except jwt.PyJWTError as error:
        raise Refused(str(error)) from error


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            context = tenant_context(self.headers)
        except Refused:
            # Why stays in our log: the answer is for strangers.
            return self.answer(401, {"error": "come through the gateway"})
        self.answer(200, {"tenant": context["slug"], "plan": context["plan"], "principal": context.get("sub")})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), App)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()
