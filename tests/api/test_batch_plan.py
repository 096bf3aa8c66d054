"""What a batch asks for: read, judged as a whole, and its references replaced."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.api.batch_plan import Found, Plan, filled, read_plan, target
from plughub.kit.errors import HubError, Invalid, Malformed, PayloadTooLarge
from plughub.kit.strict_json import members

LIMIT = 10_000


def plan_of(operations: Any, **more: Any) -> Plan:
    return read_plan(members(json.dumps({"operations": operations, **more}).encode()))


def get(id_: str, *needs: str) -> dict[str, Any]:
    return {"id": id_, "method": "GET", "path": "/servers", "depends_on": list(needs)}


def refused(operations: Any, **more: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        plan_of(operations, **more)
    return caught.value


def with_answers(body: Any, answers: Mapping[str, Found], path: str = "/servers", headers: Mapping[str, str] | None = None) -> Any:
    """Path, headers and body of an operation that refers to these answers."""
    own = {"id": "own", "method": "POST", "path": path, "headers": dict(headers or {}), "body": body}
    plan = plan_of([*(get(id_) for id_ in answers), own])
    return filled(plan.operations[-1], answers, LIMIT)


@pytest.mark.requirement("events.batch-references")
@pytest.mark.parametrize(
    ("operation", "field", "words"),
    [
        ("x", "operations.0", "must be an object"),
        ({"method": "GET"}, "operations.0.path", "is required"),
        ({"path": "/servers"}, "operations.0.method", "is required"),
        ({"method": "HEAD", "path": "/servers"}, "operations.0.method", "one of: GET, POST"),
        ({"method": "GET", "path": "servers"}, "operations.0.path", "begin with /"),
        ({"method": "GET", "path": "https://example.com/x"}, "operations.0.path", "begin with /"),
        ({"method": "GET", "path": "/" + "x" * 5000}, "operations.0.path", "at most"),
        ({"method": "GET", "path": 1}, "operations.0.path", "must be a string"),
        ({"method": "GET", "path": "/servers", "id": "a b"}, "operations.0.id", "letters, digits"),
        ({"method": "GET", "path": "/servers", "url": "/x"}, "operations.0.url", "not known"),
        ({"method": "GET", "path": "/servers", "depends_on": "a"}, "operations.0.depends_on", "must be a list"),
        ({"method": "GET", "path": "/servers", "depends_on": ["a"]}, "operations.0.depends_on", "names no operation: 'a'"),
        ({"method": "GET", "path": "/servers/{{a.body.uuid}}"}, "operations.0.path", "refers to no operation: {{a.body.uuid}}"),
        ({"method": "GET", "path": "/servers/{{a}}"}, "operations.0.path", "a reference that is none"),
        ({"method": "GET", "path": "/servers/{{ a.body.uuid"}, "operations.0.path", "a reference that is none"),
        ({"method": "POST", "path": "/servers", "body": {"x": ["{{a.body}}"]}}, "operations.0.body", "refers to no operation"),
        (
            {"method": "GET", "path": "/x", "headers": {"If-None-Match": "{{a.headers.etag}}"}},
            "operations.0.headers.if-none-match",
            "no operation",
        ),
        (
            {"method": "GET", "path": "/x", "headers": {"Authorization": "Bearer x"}},
            "operations.0.headers.Authorization",
            "those of the batch",
        ),
        ({"method": "GET", "path": "/x", "headers": {"Accept": "a\nb"}}, "operations.0.headers.Accept", "printable ASCII"),
        ({"method": "GET", "path": "/x", "headers": {"Accept": "a", "accept": "b"}}, "operations.0.headers.accept", "twice"),
        ({"method": "GET", "path": "/x", "headers": []}, "operations.0.headers", "must be an object"),
    ],
)
def test_what_is_wrong_is_named(operation: Any, field: str, words: str) -> None:
    error = refused([operation])
    assert error.details["field"] == field
    assert words in error.text


@pytest.mark.requirement("events.batch-references", "events.batch")
def test_the_whole_is_bounded_and_each_operation_is_called_something_else() -> None:
    assert [op.id for op in plan_of([get("a"), {"method": "GET", "path": "/x"}]).operations] == ["a", "1"]
    assert refused([get("a"), get("a")]).details["field"] == "operations.1.id"
    assert refused([get("1"), {"method": "GET", "path": "/x"}]).text == "Two operations are called '1'"
    assert len(plan_of([get(f"n{n}") for n in range(50)]).operations) == 50
    for count in (0, 51):
        assert refused([get(f"n{n}") for n in range(count)]).text == "The 'operations' field must have 1 to 50 items"
    assert refused([get("a")], mode="eventual").details["field"] == "mode"
    with pytest.raises(Malformed, match="appears twice"):
        read_plan(members(b'{"operations":[{"method":"GET","path":"/a","path":"/b"}]}'))


@pytest.mark.requirement("events.batch-references")
def test_rings_are_named_and_what_comes_later_is_for_parallel_alone() -> None:
    ring = [get("a", "c"), get("b", "a"), get("c", "b"), get("d", "c")]
    for mode in ("parallel", "sequential", "atomic"):
        assert refused(ring, mode=mode).text == "Operations depend on each other: a -> c -> b -> a"
    assert refused([get("a", "a")], mode="parallel").text.endswith("a -> a")
    later = [get("a", "b"), get("b")]
    assert plan_of(later, mode="parallel").operations[0].needs == (1,)
    for mode in ("sequential", "atomic"):
        assert "'a' depends on 'b', which comes after it" in refused(later, mode=mode).text


@pytest.mark.requirement("events.batch-references")
def test_a_reference_becomes_the_value_and_everything_else_passes_as_it_came() -> None:
    body = {"n": 1, "list": [{"deep": "x"}], "text": 'say "hi" é', "none": None}
    answers = {"a": Found(201, {"ETag": 'W/"1"'}, json.dumps(body).encode())}
    sent = {
        "whole": "{{a.body.list}}",
        "number": "{{ a.body.n }}",
        "inside": "<{{a.body.text}}>/{{a.status}}",
        "item": "{{a.body.list.0.deep}}",
        "everything": "{{a.body}}",
        "{{a.body.n}}": "the name of a member stays",
        "other": "{{user.name}} and {{ x }}",
    }
    path, headers, raw = with_answers(sent, answers, "/servers/{{a.body.text}}/x?n={{a.body.n}}", {"If-None-Match": "{{a.headers.etag}}"})
    assert path == "/servers/say%20%22hi%22%20%C3%A9/x?n=1"
    assert headers == {"if-none-match": 'W/"1"'}
    assert json.loads(raw) == {
        **sent,
        "whole": [{"deep": "x"}],
        "number": 1,
        "inside": '<say "hi" é>/201',
        "item": "x",
        "everything": body,
    }
    odd = plan_of([get("a"), get("b")]).operations[1]
    kept = rb'{"big":123456789012345678901234567890,"f":1.10,"s":"\u0041\/","t":"{{x}}","u":"\u007b{a.body.n}}"}'
    spelled = read_plan(members(b'{"operations":[{"id":"a","method":"GET","path":"/x"},{"method":"POST","path":"/x","body":%b}]}' % kept))
    assert filled(spelled.operations[1], {}, LIMIT)[2] == kept, "not a byte is changed where there is no reference"
    assert filled(odd, {}, LIMIT)[2] is None


@pytest.mark.requirement("events.batch-references")
def test_a_reference_to_what_an_answer_does_not_have_is_refused() -> None:
    answers = {
        "a": Found(200, {}, b'{"list":[1],"o":{},"empty":""}'),
        "text": Found(200, {}, None),
        "big": Found(200, {}, b'"' + b"x" * 6000 + b'"'),
    }
    for reference in ("a.body.uuid", "a.body.list.1", "a.body.list.x", "a.body.o.p.q", "a.headers.etag", "text.body.x", "a.status.x"):
        with pytest.raises(Invalid, match=r"does not have \{\{" + reference):
            with_answers({"x": f"{{{{{reference}}}}}"}, answers)
    for reference in ("a.body.list", "a.body.o", "text.body"):
        with pytest.raises(Invalid, match="is no text"):
            with_answers({"x": f"in {{{{{reference}}}}} a text"}, answers)
        with pytest.raises(Invalid, match="is no text"):
            with_answers(None, answers, path=f"/servers/{{{{{reference}}}}}")
    with pytest.raises(Invalid, match="is empty"):
        with_answers(None, answers, path="/servers/{{a.body.empty}}/tools")
    with pytest.raises(PayloadTooLarge):
        with_answers({"x": ["{{big.body}}"] * 3}, answers)
    with pytest.raises(Invalid, match="is no reference: body, headers or status"):
        with_answers({"x": "{{a.uuid}}"}, answers)
    assert with_answers({"x": "{{0.uuid}} {{0}}"}, answers)[2] is not None, "only what somebody has named is looked at"


def test_a_path_is_that_of_the_api_unless_it_says_otherwise() -> None:
    paths = ["/servers", "/api/servers", "/api/v2/servers", "/api/v1/servers", "/v2/servers", "/v1/mcps", "/apix", "/s/a b%2Fc?q=ä&r=%20"]
    assert [b"?".join(filter(None, target(path))) for path in paths] == [
        b"/api/servers",
        b"/api/servers",
        b"/api/servers",
        b"/api/servers",
        b"/api/servers",
        b"/v1/mcps",
        b"/api/apix",
        b"/api/s/a%20b%2Fc?q=%C3%A4&r=%20",
    ]


graphs = st.integers(1, 8).flatmap(
    lambda count: st.tuples(st.lists(st.lists(st.integers(0, count - 1), max_size=3), min_size=count, max_size=count), st.booleans())
)


def runnable(needs: list[list[int]]) -> bool:
    """The same by another way: whether everything can be done when each waits for its needs."""
    done: set[int] = set()
    for _ in needs:
        done |= {n for n, wanted in enumerate(needs) if set(wanted) <= done}
    return len(done) == len(needs)


@pytest.mark.requirement("events.batch-references")
@given(graphs)
def test_a_plan_is_taken_exactly_when_it_can_be_carried_out(graph: tuple[list[list[int]], bool]) -> None:
    needs, by_reference = graph
    operations = [
        {"id": f"o{n}", "method": "POST", "path": "/x", "body": [f"{{{{o{need}.body.x}}}}" for need in wanted]}
        if by_reference
        else get(f"o{n}", *(f"o{need}" for need in wanted))
        for n, wanted in enumerate(needs)
    ]
    for mode, possible in (
        ("parallel", runnable(needs)),
        ("sequential", all(need < n for n, wanted in enumerate(needs) for need in wanted)),
    ):
        try:
            plan = plan_of(operations, mode=mode)
        except Invalid as error:
            assert not possible and "o" in error.text
        else:
            assert possible
            assert [set(operation.needs) for operation in plan.operations] == [set(wanted) for wanted in needs]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.requirement("events.batch-references")
@given(values, values)
def test_any_value_goes_through_a_reference_unchanged_and_never_brings_a_reference_along(value: Any, beside: Any) -> None:
    answers = {"a": Found(200, {}, json.dumps({"v": value}).encode())}
    try:
        _, _, raw = with_answers({"got": "{{a.body.v}}", "beside": beside}, answers)
    except HubError:  # `beside` may happen to look like a reference
        assert "{{" in json.dumps(beside)
        return
    assert json.loads(raw) == {"got": value, "beside": beside} or "{{" in json.dumps(beside)


@pytest.mark.requirement("events.batch-references")
@given(st.text(min_size=1))
def test_a_text_stays_within_its_segment_of_a_path(text: str) -> None:
    answers = {"a": Found(200, {}, json.dumps(text).encode())}
    path, _, _ = with_answers(None, answers, "/servers/{{a.body}}/tools")
    raw, query = target(path)
    assert raw.count(b"/") == 4 and not query and raw.isascii()
