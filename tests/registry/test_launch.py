"""From a document and what is given to a command or an address."""

import pytest

from plughub.kit.errors import Conflict, Invalid
from plughub.registry.launch import Package, choose, inputs_of, plan
from tests.registry.documents import Json, document, package

NODE = package(
    "@somebody/db",
    "npm",
    runtimeArguments=[{"type": "positional", "value": "-y"}],
    packageArguments=[
        {"type": "positional", "value": "serve"},
        {"type": "named", "name": "--host", "default": "localhost", "isRequired": True},
        {"type": "named", "name": "--port", "format": "number"},
        {"type": "named", "name": "--read-only"},
        {"type": "positional", "valueHint": "database", "isRequired": True, "description": "Which one"},
        {"type": "named", "name": "--password", "valueHint": "password", "isSecret": True},
        {"type": "named", "name": "--after", "value": "it"},
    ],
    environmentVariables=[
        {"name": "DB_USER", "isRequired": True},
        {"name": "SSL_MODE", "default": "prefer", "choices": ["prefer", "require"]},
        {"name": "DSN", "value": "db://{region}/x", "variables": {"region": {"default": "eu"}}},
    ],
)
REMOTE: Json = {
    "type": "streamable-http",
    "url": "https://{tenant}.example.com/mcp",
    "variables": {"tenant": {"isRequired": True}},
    "headers": [{"name": "Authorization", "value": "Bearer {token}", "variables": {"token": {"isRequired": True, "isSecret": True}}}],
}


@pytest.mark.requirement("registry.install-asks")
def test_everything_that_is_missing_or_wrong_is_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        plan(NODE, {"port": "many", "SSL_MODE": "off", "NOT A NAME": "x"})
    fields = {error["field"] for error in caught.value.errors}
    assert fields == {"env.database", "env.DB_USER", "env.port", "env.SSL_MODE", "env.NOT A NAME"}
    assert caught.value.errors[1]["message"] == "The 'env.database' field is required: Which one"


@pytest.mark.requirement("registry.install-asks")
def test_values_come_where_the_document_wants_them_and_secret_ones_are_not_shown() -> None:
    made = plan(NODE, {"database": "main", "DB_USER": "ada", "password": "secret", "port": "5432", "EXTRA": "1"})
    assert made.args == ["serve", "--host", "localhost", "--port", "5432", "--read-only", "main"]
    assert made.secret_args == ["--password", "secret", "--after", "it"]
    assert made.env == {"DB_USER": "ada", "SSL_MODE": "prefer", "DSN": "db://eu/x", "EXTRA": "1"}
    assert (made.package, made.transport) == (Package("npm", "@somebody/db", "1.0.0"), "STDIO")


@pytest.mark.requirement("registry.install-asks")
def test_a_value_stays_one_word_whatever_is_in_it() -> None:
    made = plan(NODE, {"database": "; rm -rf / --host evil $(id)", "DB_USER": "a\nb"})
    assert made.args[-3] == "; rm -rf / --host evil $(id)" and made.env["DB_USER"] == "a\nb"


@pytest.mark.requirement("registry.install-asks")
def test_a_remote_takes_its_variables_into_address_and_headers_and_nothing_else() -> None:
    made = plan(REMOTE, {"tenant": "blue", "token": "t0"})
    assert (made.transport, made.url, made.headers) == ("STREAMABLE_HTTP", "https://blue.example.com/mcp", {"Authorization": "Bearer t0"})
    assert [(one.label, one.required, one.secret) for one in inputs_of(REMOTE)] == [("tenant", True, False), ("token", True, True)]
    with pytest.raises(Invalid) as caught:
        plan(REMOTE, {"tenant": "blue", "token": "t0", "other": "x"})
    assert caught.value.details["field"] == "env.other"


@pytest.mark.requirement("registry.install")
def test_the_first_package_that_can_be_run_is_taken_and_the_remote_where_commands_are_not_allowed() -> None:
    both = document(packages=[package(kind="oci"), NODE], remotes=[REMOTE])
    assert choose(both, stdio=True) is NODE
    assert choose(both, stdio=False) is REMOTE


@pytest.mark.requirement("registry.install")
@pytest.mark.parametrize(
    ("packages", "reason"),
    [
        ([], "names no package and no address"),
        ([package(kind="oci")], "packages of the kind oci are not supported"),
        ([package(transport={"type": "sse", "url": "http://localhost:1/"})], "a server of its own"),
        ([package(registryBaseUrl="https://evil.example/simple")], "a registry of its own"),
        ([package(runtimeArguments=[{"type": "named", "name": "--index-url", "value": "x"}])], "arguments of its runner"),
        ([package(runtimeArguments=[{"type": "named", "name": "--with", "value": "https://evil/x.whl"}])], "arguments of its runner"),
        ([package(runtimeArguments=[{"type": "named", "name": "--with", "value": "--pre"}])], "arguments of its runner"),
    ],
)
def test_what_cannot_be_run_is_said(packages: list[Json], reason: str) -> None:
    with pytest.raises(Conflict, match=reason):
        choose(document(packages=packages), stdio=True)


@pytest.mark.requirement("registry.install")
def test_further_requirements_of_a_package_are_pinned_with_it() -> None:
    found = package(runtimeArguments=[{"type": "named", "name": "--with", "value": "mcp<2"}])
    assert plan(choose(document(packages=[found]), stdio=True), {}).package == Package("pypi", "tickets-mcp", "1.0.0", ("mcp<2",))


@pytest.mark.requirement("registry.install-hash")
def test_the_hash_of_a_file_is_kept_for_the_comparison() -> None:
    assert plan(package(fileSha256="AB" * 32), {}).package == Package("pypi", "tickets-mcp", "1.0.0", (), "sha256-" + "ab" * 32)
    assert plan(package(), {}, "sha256-00").package == Package("pypi", "tickets-mcp", "1.0.0", (), "sha256-00")
