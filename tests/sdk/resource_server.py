"""Takes in requests as a service does that uses authlib: who presents a token is let in
if introspection says so. `spatio_calls.py` says how it is run.
"""

import json
import os
import sys

from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6749 import MissingAuthorizationError, OAuth2Request, ResourceProtector
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from requests import HTTPError

WORLD = json.loads(os.environ["WORLD"])
INTROSPECT, REVOKE = WORLD["base"] + "/oauth2/introspect", WORLD["base"] + "/oauth2/revoke"


class Validator(IntrospectTokenValidator):
    """Asks as a client that presents a token of its own, as bearer or as its password."""

    def __init__(self, session, **more):
        super().__init__(realm="notes")
        self.session, self.more = session, more

    def introspect_token(self, token_string):
        answer = self.session.introspect_token(INTROSPECT, token=token_string, **self.more)
        answer.raise_for_status()
        return answer.json()


def basic(token):
    return Validator(OAuth2Session("notes", token))


def bearer(token):
    session = OAuth2Session(token={"access_token": token, "token_type": "Bearer"})
    return Validator(session, auth=session.token_auth, token_type_hint="access_token")


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def let_in(validator, headers, *scopes):
    """What is known of who sends these headers."""
    protector = ResourceProtector()
    protector.register_token_validator(validator)
    request = OAuth2Request("GET", "https://notes.example/1", headers=headers)
    return protector.validate_request(scopes, request)


def refused(error, *arguments):
    try:
        known = let_in(*arguments)
    except error as refusal:
        return refusal
    raise AssertionError(f"{arguments} is let in: {known}")


def presenting(token):
    return {"Authorization": f"Bearer {token}"}


ways = basic(WORLD["verifier"]), bearer(WORLD["verifier"])
for way in ways:
    for known in WORLD["tokens"]:
        headers, scope = presenting(known["token"]), known["scope"]
        equal(let_in(way, headers), known["claims"])
        equal(let_in(way, headers, scope), known["claims"])
        equal(let_in(way, headers, "write:notes", scope), known["claims"])
        for wanted in ("write:notes", f"{scope} write:notes"):
            refusal = refused(InsufficientScopeError, way, headers, wanted)
            equal((refusal.error, refusal.status_code), ("insufficient_scope", 403))
    for token in (WORLD["unknown"], "garbage", "%00"):
        refused(InvalidTokenError, way, presenting(token))
    refused(MissingAuthorizationError, way, {})
# Who may not ask is told so, and lets nobody in.
for way in (basic, bearer):
    for token, status in ((WORLD["other"], 403), (WORLD["unknown"], 401)):
        refusal = refused(HTTPError, way(token), headers)
        equal(refusal.response.status_code, status)

print(json.dumps({"accepted": len(WORLD["tokens"])}), flush=True)
sys.stdin.readline()

for known in WORLD["tokens"]:
    # To end it takes no more than to have it. A second time is no mistake.
    for client in (OAuth2Session("notes"), OAuth2Session("notes", WORLD["verifier"])):
        ended = client.revoke_token(REVOKE, token=known["token"], token_type_hint="access_token")
        equal((ended.status_code, ended.content), (200, b""))
        for way in ways:
            refusal = refused(InvalidTokenError, way, presenting(known["token"]))
            equal((refusal.error, refusal.status_code), ("invalid_token", 401))
