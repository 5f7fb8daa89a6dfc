"""Makes every call that the published Arvados client has for these tokens, and the
mistakes that can be made; `spatio_calls.py` says how it is run.
"""

import json
import os
import re
import ssl
import sys
from datetime import datetime
from urllib.parse import urlsplit

import arvados
import arvados.util
import httplib2
from arvados.errors import ApiError

WORLD = json.loads(os.environ["WORLD"])
BASE = urlsplit(WORLD["base"])
IS_SECURE = BASE.scheme == "https"
NOW = datetime.fromisoformat(WORLD["now"].replace("Z", "+00:00"))
LATER = "2031-01-02T03:04:05.678901000Z"
PATH = "/arvados/v1/api_client_authorizations"
SCOPES = "the scopes of the caller's token do not allow this"
USER = "the caller's user may not do this"
ABSENT = "there is no such API client authorization"
UNKNOWN = "zzzzz-gj3su-unknownunknown0"
SYSTEM = "zzzzz-tpzed-000000000000000"
ATTRIBUTES = (
    "api_client_id api_token created_at created_by_ip_address etag expires_at kind"
    " last_used_at last_used_by_ip_address modified_at modified_by_user_uuid owner_uuid"
    " scopes user_id uuid"
).split()


class Noting(httplib2.Http):
    """Notes the method of each request that is sent, and the one that it names instead."""

    def __init__(self):
        super().__init__(ca_certs=arvados.util.ca_certs_path())
        self.sent = []

    def request(self, uri, method="GET", body=None, headers=None, **more):
        self.sent.append((method, (headers or {}).get("x-http-method-override")))
        return super().request(uri, method, body=body, headers=headers, **more)


def api(token, **more):
    """The calls for these tokens, of a client with this one."""
    # Nothing is kept on the disk, and nothing is tried again unless that is asked for.
    more = {"cache": False, "num_retries": 0, **more}
    if IS_SECURE:
        client = arvados.api("v1", host=BASE.netloc, token=token, **more)
    else:
        document = WORLD["base"] + "/discovery/v1/apis/{api}/{apiVersion}/rest"
        client = arvados.api.api_client("v1", document, token, **more)
    return client.api_client_authorizations()


def noting(token, **more):
    """The same, and what it sends."""
    http = Noting()
    calls = api(token, http=http, **more)
    http.sent.clear()
    return calls, http.sent


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def of(**attributes):
    """A body."""
    return {"api_client_authorization": attributes}


def answered(call, **given):
    return call(**given).execute()


def listed(call, **given):
    """The uuids of a list."""
    return [item["uuid"] for item in answered(call, **given)["items"]]


def refused(status, said, call, **given):
    """A refusal is an error of the client's own, with the reason and the call's name."""
    try:
        answer = call(**given).execute()
    except ApiError as error:
        equal(error.status_code, status)
        reason = error.reason.removesuffix(f" ({error.resp['x-request-id']})")
        assert reason != error.reason and reason.startswith(said), error
    else:
        raise AssertionError(f"{given} is answered: {answer}")


def text(record):
    return f"v2/{record['uuid']}/{record['api_token']}"


def shown(record):
    """As it is shown from its second time on."""
    return record if WORLD["recoverable"] else {**record, "api_token": None}


def uuid_of(token):
    return token.split("/")[1]


if IS_SECURE:
    # The certificate is good for who was told so alone, or for who does not look.
    trusted = os.environ.pop("SSL_CERT_FILE")
    try:
        api(WORLD["token"])
    except ssl.SSLCertVerificationError:
        pass
    else:
        raise AssertionError("anybody's certificate is good")
    settings = {
        "ARVADOS_API_HOST": BASE.netloc,
        "ARVADOS_API_TOKEN": WORLD["token"],
        "ARVADOS_API_HOST_INSECURE": "1",
    }
    client = arvados.api_from_config("v1", settings, cache=False, num_retries=0)
    equal(answered(client.api_client_authorizations().current)["owner_uuid"], WORLD["user"])
    os.environ["SSL_CERT_FILE"] = trusted

me, admin, root = api(WORLD["token"]), api(WORLD["admin"]), api(WORLD["root"])
uuid, secret = WORLD["token"].split("/")[1:]
mine = [uuid, *(uuid_of(WORLD[name]) for name in ("lists", "makes"))]
total = answered(root.list, limit=0)["items_available"]

# current, by both texts of a token.
current = answered(me.current)
equal(sorted(current), ATTRIBUTES)
equal((current["uuid"], current["api_token"]), (uuid, secret))
equal((current["owner_uuid"], current["scopes"]), (WORLD["user"], ["all"]))
equal(answered(api(secret).current)["uuid"], uuid)
equal(answered(api(WORLD["token"] + "/zzzzz-dz642-anycontainer000").current)["uuid"], uuid)
equal(answered(me.current, remote="abcde")["api_token"], None)
equal(set(answered(me.current, select=["uuid"])), {"kind", "uuid"})
equal(answered(root.current)["owner_uuid"], SYSTEM)

# create
whole = answered(me.create, body={})
equal(sorted(whole), ATTRIBUTES)
assert re.fullmatch("[0-9a-z]{41,}", whole["api_token"]), "a secret as Arvados' own are"
assert arvados.util.uuid_pattern.fullmatch(whole["uuid"])
equal((whole["kind"], whole["owner_uuid"]), ("arvados#apiClientAuthorization", WORLD["user"]))
equal((whole["scopes"], whole["expires_at"], whole["api_client_id"]), (["all"], None, None))
equal(whole["created_at"], NOW.strftime("%Y-%m-%dT%H:%M:%S.000000000Z"))
equal(whole["created_by_ip_address"], "127.0.0.1")
scopes = ["GET /arvados/v1/collections/"]
limited = answered(me.create, body=of(scopes=scopes, expires_at=LATER, api_client_id=7))
equal((limited["scopes"], limited["expires_at"]), (scopes, LATER))
equal(limited["api_client_id"], 7)
selected = answered(me.create, body=of(), select=["uuid", "api_token"])
equal(set(selected), {"kind", "uuid", "api_token"})
try:
    me.create()
except TypeError:
    pass
else:
    raise AssertionError("the client insists on a body, as the document says")
for token in (text(selected), selected["api_token"]):
    equal(answered(api(token).current)["api_token"], token.split("/")[-1])
given = answered(admin.create, body=of(owner_uuid=WORLD["user"]))
equal((given["owner_uuid"], given["user_id"]), (WORLD["user"], whole["user_id"]))
mine += [record["uuid"] for record in (whole, limited, selected, given)]

# create_system_auth
system = answered(admin.create_system_auth, api_client_id=7)
equal((system["owner_uuid"], system["scopes"], system["api_client_id"]), (SYSTEM, ["all"], 7))
answered(root.delete, uuid=system["uuid"])
system = answered(root.create_system_auth, scopes=["GET /"])
equal((system["owner_uuid"], system["scopes"]), (SYSTEM, ["GET /"]))

# get
equal(answered(me.get, uuid=limited["uuid"]), shown(limited))
equal(
    answered(me.get, uuid=limited["uuid"], select=["scopes"]),
    {"kind": limited["kind"], "scopes": scopes},
)
equal(answered(root.get, uuid=limited["uuid"])["owner_uuid"], WORLD["user"])

# update


def update(**attributes):
    return answered(me.update, uuid=whole["uuid"], body=of(**attributes))


own = api(text(whole))
updated = update(expires_at="2031-01-02T03:04:05.678901Z")
equal(updated, {**shown(whole), "expires_at": LATER, "etag": updated["etag"]})
equal(answered(me.update, uuid=whole["uuid"], body={}), updated)
equal(update(scopes=["GET " + PATH])["scopes"], ["GET " + PATH])
assert whole["uuid"] in listed(own.list)
refused(403, SCOPES, own.get, uuid=whole["uuid"])
equal(update(scopes=["all"], expires_at=None)["expires_at"], None)
equal(answered(own.get, uuid=whole["uuid"])["scopes"], ["all"])
# It is over at that very instant, and good again without an end.
equal(update(expires_at=WORLD["now"])["expires_at"], whole["created_at"])
refused(401, "Not logged in", own.current)
equal(update(expires_at=None)["expires_at"], None)
equal(answered(own.current)["uuid"], whole["uuid"])

# list
everything = answered(me.list)
equal((everything["kind"], everything["limit"]), ("arvados#apiClientAuthorizationList", 100))
equal((everything["offset"], everything["items_available"]), (0, len(mine)))
equal(sorted(item["uuid"] for item in everything["items"]), sorted(mine))
assert shown(limited) in everything["items"]
by_secret = answered(me.list, filters=[["api_token", "=", whole["api_token"]]])["items"]
equal([item["uuid"] for item in by_secret], [whole["uuid"]])
equal(by_secret[0]["api_token"], shown(whole)["api_token"])
equal(listed(me.list, where={"uuid": uuid}), [uuid])
equal(listed(me.list, filters=[["expires_at", "=", limited["expires_at"]]]), [limited["uuid"]])
equal(listed(me.list, filters=[["scopes", "=", ["POST " + PATH]]]), [uuid_of(WORLD["makes"])])
equal(listed(me.list, order=["uuid desc"]), sorted(mine, reverse=True))
equal(listed(me.list, order="uuid"), sorted(mine))
for offset in range(0, len(mine) + 1, 2):
    page = listed(me.list, order=["uuid"], limit=2, offset=offset)
    equal(page, sorted(mine)[offset : offset + 2])
owners = answered(me.list, select=["owner_uuid"], distinct=True, count="none")
equal([item["owner_uuid"] for item in owners["items"]], [WORLD["user"]])
assert "items_available" not in owners
equal(listed(admin.list), [uuid_of(WORLD["admin"])])

# A list that is too long for an address is sent by POST, and makes nothing.
absent = [f"zzzzz-gj3su-{number:015}" for number in range(100)]
wanted = sorted(mine)[2:]
long = {"filters": [["uuid", "in", absent + wanted]], "order": ["uuid"]}
more = {"limit": 2, "offset": 1, "select": ["uuid"], "count": "none", "distinct": True}
for token in (WORLD["token"], WORLD["lists"]):
    calls, sent = noting(token)
    equal(listed(calls.list, **long), wanted)
    equal(listed(calls.list, **long, **more), wanted[1:3])
    where = {"uuid": wanted[0]}
    equal(listed(calls.list, **long, where=where), wanted[:1])
    equal(sent, [("POST", "GET")] * 3)
calls, sent = noting(WORLD["makes"])
refused(403, SCOPES, calls.list, **long)
equal(sent, [("POST", "GET")])

# All of many tokens, page by page. More of them are of one instant than a page has.
carol, sent = noting(WORLD["carol"])
many = {f"zzzzz-gj3su-{10**14 + number}" for number in range(1, WORLD["many"] + 1)}
many.add(uuid_of(WORLD["carol"]))
for given_too in ({}, {"ascending": False}, {"filters": [["scopes", "=", ["all"]]]}):
    sent.clear()
    pages = arvados.util.keyset_list_all(carol.list, select=["uuid", "scopes"], **given_too)
    found = [item["uuid"] for item in pages]
    equal((len(found), set(found) == many), (len(many), True))
    assert len(sent) > 4 and set(sent) == {("GET", None)}, sent
by_uuid = arvados.util.keyset_list_all(me.list, order_key="uuid")
equal([item["uuid"] for item in by_uuid], sorted(mine))

# What is refused is refused for good: nothing is tried again, and nothing is done.
patient, sent = noting(WORLD["token"], num_retries=3)
foreign = uuid_of(WORLD["admin"])
unread = {"filters": [*long["filters"], ["nothing", "=", 7]]}
refusals = (
    (403, USER, patient.create, {"body": of(owner_uuid=SYSTEM)}),
    (403, USER, patient.create_system_auth, {}),
    (403, USER, patient.update, {"uuid": uuid, "body": of(user_id=1)}),
    (403, "bypass_federation", patient.list, {"bypass_federation": True}),
    (404, ABSENT, patient.get, {"uuid": UNKNOWN}),
    (404, ABSENT, patient.get, {"uuid": foreign}),
    (404, ABSENT, patient.get, {"uuid": "nope/../x y"}),
    (404, ABSENT, patient.update, {"uuid": foreign, "body": {}}),
    (404, ABSENT, patient.delete, {"uuid": foreign}),
    (422, "scopes", patient.create, {"body": of(scopes="all")}),
    (422, "expires_at", patient.create, {"body": of(expires_at="tomorrow")}),
    (422, "api_token", patient.create, {"body": of(api_token=secret)}),
    (422, "uuid", patient.create, {"body": of(uuid=UNKNOWN)}),
    (422, "nothing", patient.create, {"body": of(nothing=7)}),
    (422, "select", patient.create, {"body": {}, "select": ["secret"]}),
    (422, "uuid", patient.update, {"uuid": uuid, "body": of(uuid=UNKNOWN)}),
    (422, "owner_uuid", patient.update, {"uuid": uuid, "body": of(owner_uuid=SYSTEM)}),
    (422, "remote", patient.current, {"remote": "x"}),
    (422, "limit", patient.list, {"limit": -1}),
    (422, "count", patient.list, {"count": "some"}),
    (422, "order", patient.list, {"order": ["nothing"]}),
    (422, "where", patient.list, {"where": {"nothing": 7}}),
    (422, "filters[0].attribute", patient.list, {"filters": [["nothing", "=", "x"]]}),
    (422, "filters[0].operator", patient.list, {"filters": [["uuid", "~", "x"]]}),
    (422, "filters[1].attribute", patient.list, unread),
)
for status, said, call, given_too in refusals:
    refused(status, said, call, **given_too)
equal(len(sent), len(refusals))

for token in (WORLD["pat"], f"v2/{uuid}/{'0' * 50}", f"v2/{foreign}/{secret}", "0" * 50, "x"):
    # That there is a document is told to anybody.
    calls, sent = noting(token, num_retries=3)
    for call, given_too in (
        (calls.create, {"body": {}}),
        (calls.create_system_auth, {}),
        (calls.current, {}),
        (calls.delete, {"uuid": uuid}),
        (calls.get, {"uuid": uuid}),
        (calls.list, {}),
        (calls.list, long),
        (calls.update, {"uuid": uuid, "body": of(scopes=[])}),
    ):
        refused(401, "Not logged in", call, **given_too)
    equal(len(sent), 8)
    equal(sent[6], ("POST", "GET"))

calls, sent = noting(WORLD["makes"], num_retries=3)
for call, given_too in (
    (calls.list, {}),
    (calls.get, {"uuid": uuid}),
    (calls.update, {"uuid": uuid, "body": {}}),
    (calls.delete, {"uuid": uuid}),
):
    refused(403, SCOPES, call, **given_too)
equal(len(sent), 4)
# Nor does it make one that may more than itself.
refused(403, "scopes", calls.create, body=of(scopes=["all"]))
inherited = answered(calls.create, body={})
equal(inherited["scopes"], answered(calls.current)["scopes"])
mine.append(inherited["uuid"])

made = {
    "whole": whole,
    "limited": limited,
    "selected": selected,
    "given": given,
    "system": system,
    "inherited": inherited,
}
equal(answered(root.list, limit=0)["items_available"], total + len(made))
print(json.dumps({name: text(record) for name, record in made.items()}), flush=True)
sys.stdin.readline()

# delete, by its owner, by itself and by who may delete any.
deleted = answered(me.delete, uuid=whole["uuid"])
equal((deleted["uuid"], deleted["scopes"]), (whole["uuid"], ["all"]))
equal(deleted["api_token"], shown(whole)["api_token"])
itself = api(selected["api_token"])
equal(answered(itself.delete, uuid=selected["uuid"])["uuid"], selected["uuid"])
equal(answered(root.delete, uuid=system["uuid"], select=["uuid"])["uuid"], system["uuid"])
for calls in (own, itself, api(text(system)), api(system["api_token"])):
    refused(401, "Not logged in", calls.current)
for record in (whole, selected, system):
    for calls in (me, root):
        refused(404, ABSENT, calls.get, uuid=record["uuid"])
        refused(404, ABSENT, calls.delete, uuid=record["uuid"])
    mine = [uuid for uuid in mine if uuid != record["uuid"]]
equal(sorted(listed(me.list)), sorted(mine))
