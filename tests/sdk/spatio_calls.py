"""Makes every call that the published Python client has, and the mistakes that can be made.

What it needs to know comes as JSON in the environment variable WORLD. It shows a
token of each kind that it made, waits for a line, and goes on to revoke them: whoever
runs it can ask about them before and after.
"""

import json
import os
import sys
from datetime import datetime, timezone

import spatio
from spatio import CreatePATRequest, UpdatePATRequest
from spatio.exceptions import (
    BadRequestException,
    ForbiddenException,
    NotFoundException,
    UnauthorizedException,
)

WORLD = json.loads(os.environ["WORLD"])
NOW = datetime.fromisoformat(WORLD["now"].replace("Z", "+00:00"))
LATER = datetime(2031, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
ORG, WORKSPACE = WORLD["organization"], WORLD["workspace"]
BY_ID, BY_SLUG = (ORG["id"], WORKSPACE["id"]), (ORG["slug"], WORKSPACE["slug"])
ODD = "nope/../x y"
UNKNOWN = "0198c0de-0000-7000-8000-00000000000a"


def api(token):
    configuration = spatio.Configuration(host=WORLD["base"], access_token=token)
    return spatio.PersonalAccessTokensApi(spatio.ApiClient(configuration))


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def answered(status, call, *arguments):
    """What a call gives; its status has to be this one, or the client knows no model."""
    answer = getattr(call.__self__, f"{call.__name__}_with_http_info")(*arguments)
    equal(answer.status_code, status)
    if status == 204:
        equal((answer.data, answer.raw_data), (None, b""))
    else:
        assert answer.data is not None
        shows_secret = any(token.encode() in answer.raw_data for token in secrets)
        assert not shows_secret, f"{call.__name__} shows a secret again"
    return answer.data


def refused(exception, code, call, *arguments):
    """A refusal has a sentence for people, and a code where there is one."""
    try:
        answer = call(*arguments)
    except exception as error:
        body = json.loads(error.body)
        assert isinstance(body.pop("error"), str)
        equal(body, {"code": code} if code else {})
        if error.data is not None:
            equal((type(error.data), error.data.code), (spatio.ApiError, code))
        # These statuses are documented: the client has a model for them.
        documented = error.status == 401 or (error.status == 403 and "workspace" in call.__name__)
        equal(error.data is not None, documented)
    else:
        raise AssertionError(f"{call.__name__}{arguments} is answered: {answer}")


secrets = []
member, outsider, admin = api(WORLD["token"]), api(WORLD["outsider"]), api(WORLD["admin"])
before = [pat.id for pat in member.list_personal_access_tokens().tokens]

# One's own tokens.
scopes = answered(200, member.list_available_pat_scopes).scopes
equal(scopes, WORLD["scopes"])

made = answered(201, member.create_personal_access_token, CreatePATRequest(name="least"))
least, least_token = made.pat, made.token
secrets.append(least_token)
assert least_token.startswith(least.token_prefix) and least_token != least.token_prefix
assert least.token_prefix.startswith("pat_")
equal((least.name, least.description, least.scopes), ("least", "", []))
equal((least.workspace_id, least.last_used_at, least.expires_at), (None, None, None))
equal(least.created_at, NOW)

request = CreatePATRequest(
    name="most",
    description="all that there is",
    scopes=["read:notes"],
    workspace_id=WORKSPACE["id"],
    expires_at=LATER,
)
made = answered(201, member.create_personal_access_token, request)
most, most_token = made.pat, made.token
secrets.append(most_token)
equal((most.name, most.description, most.scopes), ("most", "all that there is", ["read:notes"]))
equal((most.workspace_id, most.created_at, most.expires_at), (WORKSPACE["id"], NOW, LATER))

listed = answered(200, member.list_personal_access_tokens)
equal(listed.available_scopes, scopes)
equal(len(listed.tokens), len(before) + 2)
assert least in listed.tokens and most in listed.tokens

update = member.update_personal_access_token
most.name = "most of all"
equal(answered(200, update, most.id, UpdatePATRequest(name="most of all")), most)
equal(answered(200, update, most.id, UpdatePATRequest()), most)
most.description = ""
equal(answered(200, update, most.id, UpdatePATRequest(description="")), most)

# Those of a workspace. A time without a zone is one of UTC.
body = {"name": "bound", "scopes": ["read:notes"], "expiresAt": LATER.replace(tzinfo=None)}
made = answered(201, member.workspace_create_pat, *BY_ID, body)
equal(set(made), {"token", "pat"})
bound, bound_token = made["pat"], made["token"]
secrets.append(bound_token)
model = spatio.PersonalAccessToken.from_dict(bound)
equal((model.name, model.description, model.scopes), ("bound", "", ["read:notes"]))
equal((model.workspace_id, model.created_at, model.expires_at), (WORKSPACE["id"], NOW, LATER))
equal((bound["lastUsedAt"], bound_token.startswith(bound["tokenPrefix"])), (None, True))

for name in (BY_ID, BY_SLUG):
    listed = answered(200, member.workspace_list_pats, *name)
    equal(set(listed), {"tokens", "availableScopes"})
    equal(sorted(pat["name"] for pat in listed["tokens"]), ["bound", "most of all"])
    assert bound in listed["tokens"]

update = member.workspace_update_pat
bound |= {"name": "bound still", "description": "d"}
changes = {"name": "bound still", "description": "d"}
equal(answered(200, update, *BY_SLUG, bound["id"], changes), bound)
bound["description"] = ""
equal(answered(200, update, *BY_SLUG, bound["id"], {"description": ""}), bound)
refused(BadRequestException, "INVALID_ARGUMENT", update, *BY_ID, bound["id"], {"scopes": scopes})
equal(answered(200, update, *BY_ID, bound["id"], {}), bound)

# What nobody may do. None of it makes or changes anything.
for caller, code in (
    (api(None), "CALLER_TOKEN_MISSING"),
    (api(WORLD["unknown"]), "CALLER_TOKEN_REFUSED"),
    (api("pat_"), "CALLER_TOKEN_REFUSED"),
):
    for call, *arguments in (
        (caller.list_available_pat_scopes,),
        (caller.list_personal_access_tokens,),
        (caller.create_personal_access_token, CreatePATRequest(name="n")),
        (caller.update_personal_access_token, least.id, UpdatePATRequest(name="n")),
        (caller.revoke_personal_access_token, least.id),
        (caller.workspace_list_pats, *BY_ID),
        (caller.workspace_create_pat, *BY_ID, {"name": "n"}),
        (caller.workspace_update_pat, *BY_ID, bound["id"], {"name": "n"}),
        (caller.workspace_revoke_pat, *BY_ID, bound["id"]),
    ):
        refused(UnauthorizedException, code, call, *arguments)

for request in (
    CreatePATRequest(name=" "),
    CreatePATRequest(name="n", scopes=["no scope"]),
    CreatePATRequest(name="n", scopes=["fly:notes"]),
    CreatePATRequest(name="n", expires_at=NOW),
    CreatePATRequest(name="n", expires_at=datetime(2001, 2, 3, tzinfo=timezone.utc)),
):
    create = member.create_personal_access_token
    refused(BadRequestException, "INVALID_ARGUMENT", create, request)
for code, request in (
    ("NOT_A_MEMBER", CreatePATRequest(name="n", workspace_id=WORKSPACE["id"])),
    ("EXCEEDS_CALLER", CreatePATRequest(name="n", scopes=["read:notes"])),
):
    refused(ForbiddenException, code, outsider.create_personal_access_token, request)
for body in ({}, {"name": " "}, {"name": 7}, {"name": "n", "expiresAt": "tomorrow"}):
    create = member.workspace_create_pat
    refused(BadRequestException, "INVALID_ARGUMENT", create, *BY_SLUG, body)

for id in (UNKNOWN, ODD, WORLD["foreign"]):
    update, revoke = member.update_personal_access_token, member.revoke_personal_access_token
    refused(NotFoundException, None, update, id, UpdatePATRequest(name="n"))
    refused(NotFoundException, None, revoke, id)
    refused(NotFoundException, None, member.workspace_update_pat, *BY_ID, id, {"name": "n"})
    refused(NotFoundException, None, member.workspace_revoke_pat, *BY_ID, id)

for call, *arguments in (
    (outsider.workspace_list_pats, *BY_ID),
    (outsider.workspace_create_pat, *BY_SLUG, {"name": "n"}),
    (outsider.workspace_update_pat, *BY_ID, bound["id"], {"name": "n"}),
    (outsider.workspace_revoke_pat, *BY_SLUG, bound["id"]),
    # That there is no such workspace is told to administrators alone.
    (member.workspace_list_pats, ORG["slug"], "nowhere"),
    (member.workspace_list_pats, "nobody", WORKSPACE["slug"]),
):
    refused(ForbiddenException, "CALLER_ROLE", call, *arguments)
for names in ((ORG["slug"], "nowhere"), (ODD, WORKSPACE["slug"]), (ORG["id"], ODD)):
    refused(NotFoundException, None, admin.workspace_list_pats, *names)
    refused(NotFoundException, None, admin.workspace_create_pat, *names, {"name": "n"})
    refused(NotFoundException, None, admin.workspace_update_pat, *names, UNKNOWN, {"name": "n"})
    refused(NotFoundException, None, admin.workspace_revoke_pat, *names, UNKNOWN)

print(json.dumps({"least": least_token, "most": most_token, "bound": bound_token}), flush=True)
sys.stdin.readline()

answered(204, member.revoke_personal_access_token, least.id)
answered(204, member.workspace_revoke_pat, *BY_SLUG, bound["id"])
refused(NotFoundException, None, member.revoke_personal_access_token, least.id)
refused(NotFoundException, None, member.workspace_revoke_pat, *BY_ID, bound["id"])
refused(UnauthorizedException, "CALLER_TOKEN_REFUSED", api(least_token).list_available_pat_scopes)
listed = answered(200, member.list_personal_access_tokens)
equal(sorted(pat.id for pat in listed.tokens), sorted([*before, most.id]))
