"""What the description can't say to schemathesis: values that only a service with this
directory takes, tokens that must outlive the run, and a rule about two places."""

import json
import os
import string
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qs, urlparse

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData

BASE36 = string.digits + string.ascii_lowercase


def form(name, strategy):
    schemathesis.openapi.format(name, strategy)


# The clock of the test stands at the beginning of 2027.
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(
    datetime(2028, 1, 1), datetime(9998, 12, 31), timezones=st.one_of(st.just(UTC), zones)
)
form("date-time", instants.map(lambda instant: instant.isoformat().replace("+00:00", "Z")))
form("http-date", instants.map(lambda instant: instant.strftime("%a, %d %b %Y %H:%M:%S GMT")))

# The catalogue is `read:*` and `write:*`.
areas = st.from_regex(r"\*|[a-z0-9][a-z0-9._/-]{0,80}", fullmatch=True)
form("pat-scope", st.builds("{}:{}".format, st.sampled_from(["read", "write"]), areas))

# At most 256 bytes.
paths = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60)
methods = st.sampled_from(["GET", "PUT", "POST", "DELETE"])
routes = st.one_of(st.just("all"), paths, st.builds("{} /{}".format, methods, paths))
form("route-scope", routes)

entries = st.lists(routes, max_size=5)
form("json-scopes", entries.map(json.dumps))
attributes = st.fixed_dictionaries({}, optional={"scopes": entries, "expires_at": st.none()})
form("json-object", st.one_of(st.just(""), attributes.map(json.dumps)))

form("own-cluster", st.just("zzzzz"))
# Those that begin otherwise may be reserved.
ends = st.text(BASE36, min_size=14, max_size=14)
form("chosen-uuid", ends.map("zzzzz-gj3su-x{}".format))

# The ids and the texts of the callers' tokens.
OWN = os.environ["OWN"].split()
form("password", st.one_of(st.text(min_size=1), st.sampled_from(OWN)))


@schemathesis.hook
def before_call(context, case, kwargs):
    """Changes and ends no token that the run goes on with."""
    if case.operation.path == "/oauth2/introspect":
        return
    for values in (case.path_parameters, case.body):
        if isinstance(values, dict):
            for name, value in values.items():
                if value in OWN:
                    values[name] = "0"


# What is wrong with good values: one came too late, out of another answer, or two don't
# go together.
REFUSALS = [
    "expiresAt must be in the future",
    "user_id is not the number of owner_uuid",
    "another token has this uuid",
]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whether it is one."""
    if isinstance(failure, AcceptedNegativeData):
        # Good values among which a link has put another may still be good.
        return "positive test case" not in failure.message
    is_good = any(refusal in response.text for refusal in REFUSALS)
    return not (is_good and isinstance(failure, RejectedPositiveData))


@schemathesis.check
def answers_with_every_attribute_unless_some_are_selected(ctx, response, case):
    """The schema has them optional, as `select` leaves them out."""
    body = response.json() if response.status_code == 200 and response.content else None
    if not isinstance(body, dict) or "select" in parse_qs(urlparse(response.request.url).query):
        return
    schema = case.operation.schema.raw_schema["components"]["schemas"]["ApiClientAuthorization"]
    for record in body.get("items", [body]):
        if record.get("kind") == "arvados#apiClientAuthorization":
            missing = schema["properties"].keys() - record.keys()
            assert not missing, f"the answer is without {sorted(missing)}"
