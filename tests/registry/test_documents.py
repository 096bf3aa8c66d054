"""What a document of a registry may say, and what is refused of it."""

import json
from typing import Any

import pytest

from plughub.kit.errors import Invalid
from plughub.registry.documents import MAX_BYTES, read_document
from tests.registry.documents import Json, document, package


def refused(value: Any, *, foreign: bool = True) -> str:
    """The field that is complained of."""
    with pytest.raises(Invalid) as caught:
        read_document(value, foreign=foreign)
    return str(caught.value.details["field"])


@pytest.mark.requirement("registry.documents")
def test_a_good_document_is_read_and_keeps_what_is_not_known() -> None:
    whole = document(
        "io.github.somebody/Weather.Server",
        title="Weather",
        packages=[package("@somebody/weather", "npm", fileSha256="ab", mine={"x": 1})],
        remotes=[{"type": "sse", "url": "https://{tenant}.example.com/sse", "variables": {"tenant": {"isRequired": True}}}],
        repository={"url": "https://github.com/somebody/weather", "source": "github"},
        something={"new": True},
    )
    found = read_document(whole, foreign=True)
    assert (found.author, found.short_name, found.title) == ("somebody", "weather.server", "Weather")
    assert (found.package_type, found.transports, found.document) == ("npm", ("stdio", "sse"), whole)


@pytest.mark.requirement("registry.documents", "registry.hostile-entries")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"name": "no-namespace"}, "name"),
        ({"name": "../etc/passwd"}, "name"),
        ({"name": "../.."}, "name"),
        ({"name": "com.example/ti\u0441kets"}, "name"),
        ({"name": "com.example/" + "x" * 200}, "name"),
        ({"name": "com.example/a%2Fb"}, "name"),
        ({"description": "x" * 101}, "description"),
        ({"description": ["x"]}, "description"),
        ({"title": "a\u202egnp.exe"}, "title"),
        ({"title": "a\x1b[2J"}, "title"),
        ({"version": "latest"}, "version"),
        ({"version": "^1.0.0"}, "version"),
        ({"version": ">=1"}, "version"),
        ({"version": 1}, "version"),
        ({"packages": {}}, "packages"),
        ({"packages": [7]}, "packages.0"),
        ({"packages": [package()] * 21}, "packages"),
        ({"packages": [package(kind="gem")]}, "packages.0.registryType"),
        ({"packages": [package("--index-url=http://evil")]}, "packages.0.identifier"),
        ({"packages": [package("../../tmp/evil")]}, "packages.0.identifier"),
        ({"packages": [package("/tmp/evil")]}, "packages.0.identifier"),
        ({"packages": [package("evil @ https://evil.example/x.whl")]}, "packages.0.identifier"),
        ({"packages": [package("-g", "npm")]}, "packages.0.identifier"),
        ({"packages": [package("git+ssh://evil/x", "npm")]}, "packages.0.identifier"),
        ({"packages": [package("file:../x", "npm")]}, "packages.0.identifier"),
        ({"packages": [package("@a/b/c", "npm")]}, "packages.0.identifier"),
        ({"packages": [package("a..b", "npm")]}, "packages.0.identifier"),
        ({"packages": [package("-v", "oci")]}, "packages.0.identifier"),
        ({"packages": [package(version="latest")]}, "packages.0.version"),
        ({"packages": [package(version="1.0 --pre")]}, "packages.0.version"),
        ({"packages": [package(version="npm:evil@1", kind="npm")]}, "packages.0.version"),
        ({"packages": [package(version=None)]}, "packages.0.version"),
        ({"packages": [package(transport=None)]}, "packages.0.transport"),
        ({"packages": [package(transport={"type": "carrier-pigeon"})]}, "packages.0.transport.type"),
        ({"packages": [package(registryBaseUrl="http://127.0.0.1/")]}, "packages.0.registryBaseUrl"),
        ({"packages": [package(packageArguments=[{"type": "positional"}])]}, "packages.0.packageArguments.0.value"),
        ({"packages": [package(packageArguments=[{"type": "named"}])]}, "packages.0.packageArguments.0.name"),
        ({"packages": [package(environmentVariables=[{"name": "A=B"}])]}, "packages.0.environmentVariables.0.name"),
        ({"packages": [package(environmentVariables=[{"name": "A", "isSecret": "yes"}])]}, "packages.0.environmentVariables.0.isSecret"),
        ({"packages": [package(environmentVariables=[{"name": "A"}] * 101)]}, "packages.0.environmentVariables"),
        ({"remotes": [{"type": "stdio", "url": "https://example.com"}]}, "remotes.0.type"),
        ({"remotes": [{"type": "sse", "url": "file:///etc/passwd"}]}, "remotes.0.url"),
        ({"remotes": [{"type": "sse", "url": "https://user:secret@example.com/"}]}, "remotes.0.url"),
        ({"remotes": [{"type": "sse", "url": "https://example.com/", "headers": [{"name": "A\r\nB"}]}]}, "remotes.0.headers.0.name"),
        ({"repository": {"url": "javascript:alert(1)"}}, "repository.url"),
        ({"x": "y" * MAX_BYTES}, "server"),
        ({"x": "\ud800"}, "server"),
    ],
)
def test_what_is_wrong_is_named(change: Json, field: str) -> None:
    assert refused(document(**change)) == field


@pytest.mark.requirement("registry.hostile-entries")
@pytest.mark.parametrize("value", [None, [], "x", 7])
def test_what_is_no_object_is_refused(value: Any) -> None:
    assert refused(value) == "server"


@pytest.mark.requirement("registry.hostile-entries")
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "[::1]",
        "[fd00::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::a00:1]",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "printer.local",
        "metadata.google.internal",
    ],
)
def test_a_foreign_address_that_leads_inside_is_refused_and_an_own_one_is_not(host: str) -> None:
    found = document(remotes=[{"type": "streamable-http", "url": f"http://{host}/mcp"}])
    assert refused(found) == "remotes.0.url"
    assert json.dumps(dict(read_document(found, foreign=False).document)) == json.dumps(found)
