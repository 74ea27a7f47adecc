"""What schemathesis has to be told of the admin API, besides its description.

TAILWATER_SEEN names a file that gets a line for each answer: method, path of the description, status.
"""

import json
import os

import jsonschema_rs
import schemathesis
from hypothesis import strategies

TAP = "/v1/tap"
# Nodes of the agent that is asked: else nobody would guess one.
NODES = ["pipeline logs", "receiver filelog (logs)", "processor batch in logs", "exporter loki (logs)"]

_lines = None

# Headers are else made of letters and digits alone, also where a pattern wants quotes.
schemathesis.openapi.format("etag", strategies.from_regex(r'\A"[0-9]{1,18}"\Z'))


@schemathesis.hook
def before_load_schema(ctx, raw_schema):
    global _lines
    components = raw_schema["components"]
    _lines = jsonschema_rs.validator_for({"$ref": "#/components/schemas/TapLine", "components": components})
    components["parameters"]["IfMatch"]["schema"]["format"] = "etag"
    for parameter in raw_schema["paths"][TAP]["get"]["parameters"]:
        if parameter["name"] == "node":
            parameter["examples"] = {str(i): {"value": node} for i, node in enumerate(NODES)}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """A tap is read for one second, unless what is said of its time is to be refused."""
    if case.operation.path != TAP or case.method != "GET":
        return
    query = dict(case.query or {})
    try:
        seconds = int(query.get("seconds", 60))
    except (TypeError, ValueError):
        return
    if 1 < seconds <= 3600:
        query["seconds"] = 1
        case.query = query


@schemathesis.hook
def after_call(ctx, case, response):
    with open(os.environ["TAILWATER_SEEN"], "a", encoding="utf-8") as seen:
        seen.write(f"{case.method.upper()} {case.operation.path} {response.status_code}\n")


@schemathesis.deserializer("application/x-ndjson")
def last_line(ctx, response):
    lines = response.content.decode("utf-8").splitlines()
    return json.loads(lines[-1])


@schemathesis.check
def each_line_of_a_tap_is_one(ctx, response, case):
    if case.operation.path != TAP or response.status_code != 200 or case.method != "GET":
        return
    lines = response.content.decode("utf-8").splitlines()
    assert lines and "end" in json.loads(lines[-1]), "a tap says why it ends"
    for line in lines:
        _lines.validate(json.loads(line))
