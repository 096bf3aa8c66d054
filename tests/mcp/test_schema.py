"""Whatever the protocol's own types allow passes the door of one server as it came: results to the client, parameters to the server.

The messages are made from the official package's types of the two revisions, `mcp_types`: every alternative of every union, optional
members there or not, fields that nobody knows. Always the same ones.
"""

import importlib
import random
from typing import Any

import pytest

from tests.mcp.answers import one
from tests.serving import META, FakeMcp, Json, Served

pytestmark = pytest.mark.anyio
TYPES = {era: importlib.import_module(f"mcp_types.{name}") for era, name in (("legacy", "_v2025_11_25"), ("modern", "_v2026_07_28"))}
EACH = 12
# Method: its result, and the type of its parameters where a server may be asked with any of them.
METHODS = {
    "tools/list": ("ListToolsResult", None),
    "tools/call": ("CallToolResult", "CallToolRequestParams"),
    "resources/list": ("ListResourcesResult", "PaginatedRequestParams"),
    "resources/templates/list": ("ListResourceTemplatesResult", "PaginatedRequestParams"),
    "resources/read": ("ReadResourceResult", "ReadResourceRequestParams"),
    "prompts/list": ("ListPromptsResult", "PaginatedRequestParams"),
    "prompts/get": ("GetPromptResult", "GetPromptRequestParams"),
    "completion/complete": ("CompleteResult", "CompleteRequestParams"),
}
TEXTS = ("", "a", "naïve 汉字 \U0001f600", 'quote " and \\ and \u2028', "tab\t\x7f", "x" * 300)
NUMBERS = (0, 1, -1, 0.5, 2**53 + 1, 1e300)


class Maker:
    """Makes values of a JSON schema. `turn` leads through the alternatives, so that a few values meet all of them."""

    def __init__(self, schema: Json, seed: int) -> None:
        self._definitions = schema.get("$defs", {})
        self._random = random.Random(seed)
        self._turn = seed

    def value(self, schema: Any, depth: int = 0) -> Any:
        """One value; objects get a field that the schema does not know where it does not forbid that."""
        if schema is True or not schema or set(schema) <= {"title", "description", "default"}:
            return self._random.choice([{"deep": [1, {"é": None}]}, "text", 3, [True], {}])
        if "$ref" in schema:
            return self.value(self._definitions[schema["$ref"].rpartition("/")[2]], depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                self._turn += 1
                given = [part for part in schema[union] if part != {"type": "null"}]
                return self.value(given[self._turn % len(given)], depth)
        return getattr(self, f"_{schema.get('type', 'object')}")(schema, depth)

    def _object(self, schema: Json, depth: int) -> Json:
        needed, known = schema.get("required", ()), schema.get("properties", {})
        wanted = [name for name in known if name in needed or (depth < 7 and self._random.random() < 0.6)]
        made = {name: self.value(known[name], depth + 1) for name in wanted}
        more = schema.get("additionalProperties", True)
        if more is not False and depth < 7:
            made["x-own"] = self.value(more, depth + 1)
        return made

    def _array(self, schema: Json, depth: int) -> list[Any]:
        count = schema.get("minItems", 0) + (self._random.randrange(4) if depth < 7 else 0)
        return [self.value(schema.get("items", True), depth + 1) for _ in range(count)]

    def _string(self, schema: Json, depth: int) -> str:
        return "aGk=" if schema.get("format") == "byte" else self._random.choice(TEXTS)

    def _number(self, schema: Json, depth: int) -> float:
        return float(min(max(self._random.choice(NUMBERS), schema.get("minimum", -1e308)), schema.get("maximum", 1e308)))

    def _integer(self, schema: Json, depth: int) -> int:
        return int(min(max(self._random.choice((0, 7, 2**53 + 1)), schema.get("minimum", 0)), schema.get("maximum", 2**60)))

    def _boolean(self, schema: Json, depth: int) -> bool:
        return self._random.random() < 0.5

    def _null(self, schema: Json, depth: int) -> None:
        return None


def made_of(era: str, name: str, number: int) -> Json:
    schema = getattr(TYPES[era], name).model_json_schema(by_alias=True)
    found: Json = Maker(schema, number).value({**schema, "$defs": {}})
    return found


def without_meta(params: Json) -> Json:
    return {name: value for name, value in params.items() if name != "_meta"}


def named(params: Json) -> dict[str, str]:
    """The header that repeats a URI; that of a name the request gets anyhow."""
    return {"Mcp-Name": params["uri"]} if "uri" in params else {}


@pytest.mark.requirement("mcp.payload-unchanged", "mcp.one-server-door")
@pytest.mark.parametrize("method", METHODS)
async def test_every_result_passes_as_it_came(lite: Served, fake: tuple[FakeMcp, Json], method: str) -> None:
    behind, made = fake
    modern = behind.era == "modern"
    behind.capabilities = {"tools": {}, "resources": {}, "prompts": {}, "completions": {}}
    for number in range(EACH):
        result = made_of(behind.era, METHODS[method][0], number)
        if modern:
            result["resultType"] = "complete"
        if method == "tools/call":
            behind.results["echo"] = result
        else:
            behind.list_more, behind.answers[method] = result, result
        params: Json = {"name": "echo"} if method in ("tools/call", "prompts/get") else {"uri": "test://a"} if "read" in method else {}
        if method == "completion/complete":
            params = {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}
        answer = await lite.rpc(method, params, path=one(made), modern=modern, id_=number, headers=named(params))
        assert answer.json() == {"jsonrpc": "2.0", "id": number, "result": result}


@pytest.mark.requirement("mcp.payload-unchanged", "mcp.one-server-door")
@pytest.mark.parametrize("method", [method for method, (_, params) in METHODS.items() if params is not None])
async def test_all_parameters_reach_the_server_as_they_came(lite: Served, fake: tuple[FakeMcp, Json], method: str) -> None:
    behind, made = fake
    modern, name = behind.era == "modern", METHODS[method][1]
    assert name is not None
    result = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if modern else {}
    behind.answers[method] = {**result, **made_of(behind.era, METHODS[method][0], 1)} | ({"resultType": "complete"} if modern else {})
    for number in range(EACH):
        params = made_of(behind.era, name, number)
        for odd in ("requestState", "inputResponses", "task"):  # these are the hub's to understand
            params.pop(odd, None)
        for told, value in (("name", "echo"), ("uri", "test://a")):
            if told in params:
                params[told] = value
        meta = {key: value for key, value in params.pop("_meta", {}).items() if key == "x-own"}
        answer = await lite.rpc(method, {**params, "_meta": meta}, path=one(made), modern=modern, id_=number, headers=named(params))
        assert answer.status_code == 200, answer.text
        seen = behind.calls[-1].json["params"] if method == "tools/call" else behind.asked[-1]["params"]
        assert without_meta(seen) == without_meta(params)
        assert {key: value for key, value in seen.get("_meta", {}).items() if not key.startswith(META)} == meta
