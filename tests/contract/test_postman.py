"""The Postman collection: generated, complete, with bodies that the routes' own schemas accept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from plughub.api.examples import BODIES
from plughub.api.postman import VARIABLES, build_postman, for_keys, render_postman
from plughub.door.routes import PUBLIC, Route
from tests.serving import Served
from tests.walks.rows import DOCUMENT, ROWS, example, name

FILE = Path(__file__).parents[2] / "contract" / "postman.json"
Json = dict[str, Any]
COLLECTION = build_postman(ROWS)


def request_of(row: Route) -> Json:
    wanted = row.path.replace("{", ":").replace("}", "")
    [found] = [
        item["request"]
        for folder in COLLECTION["item"]
        for item in folder["item"]
        if (item["request"]["method"], item["request"]["url"]["raw"].split("?")[0]) == (row.method, "{{base_url}}" + wanted)
    ]
    request: Json = found
    return request


@pytest.mark.anyio
@pytest.mark.requirement("routes.postman-collection")
async def test_the_file_is_what_is_generated_and_served(lite: Served) -> None:
    assert FILE.read_text() == render_postman(ROWS), "run: make contract"
    served = await lite.call("GET", "/api/postman.json", key="")
    assert served.content == FILE.read_bytes()


@pytest.mark.requirement("routes.postman-collection")
@pytest.mark.parametrize("row", [row for row in ROWS if for_keys(row)], ids=name)
def test_every_route_is_a_request_with_a_body_that_its_schema_accepts(row: Route) -> None:
    request = request_of(row)
    assert (request.get("auth") == {"type": "noauth"}) == (row.scope == PUBLIC)
    assert request["description"]
    if example(row) is None:
        assert "body" not in request
        return
    assert name(row) in BODIES, "a route that takes a body needs an example in plughub/api/examples.py"
    schema = DOCUMENT["paths"][row.path][row.method.lower()]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    assert [error.message for error in validator.iter_errors(json.loads(request["body"]["raw"]))] == []


def test_no_example_belongs_to_a_route_that_is_gone() -> None:
    assert set(BODIES) <= {name(row) for row in ROWS}


def test_every_variable_is_declared() -> None:
    used = set(re.findall(r"\{\{(\w+)\}\}", json.dumps(COLLECTION["item"])))
    assert used <= {variable["key"] for variable in COLLECTION["variable"]} == {"base_url", "api_key", *VARIABLES}
