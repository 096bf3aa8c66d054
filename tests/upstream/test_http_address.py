"""URLs and headers on the wire."""

import base64

import pytest

from plughub.kit.errors import UpstreamUnreachable
from plughub.upstream.http_address import address_of


def head(url: str, **headers: str) -> str:
    return address_of(url, headers).head.decode("latin-1")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "path", "authority"),
    [
        ("http://a.test", "a.test", 80, False, b"/", "a.test"),
        ("HTTPS://A.Test/mcp?x=1&y=%20#part", "a.test", 443, True, b"/mcp?x=1&y=%20", "a.test"),
        ("https://a.test:8443/a b/\u00e9", "a.test", 8443, True, b"/a%20b/%C3%A9", "a.test:8443"),
        ("http://[::1]:80/x", "::1", 80, False, b"/x", "[::1]"),
        ("http://[::1]:8080", "::1", 8080, False, b"/", "[::1]:8080"),
        ("http://b\u00fccher.test/", "xn--bcher-kva.test", 80, False, b"/", "xn--bcher-kva.test"),
    ],
)
def test_a_url_becomes_an_address(url: str, host: str, port: int, tls: bool, path: bytes, authority: str) -> None:
    address = address_of(url, {})
    assert (address.host, address.port, address.tls, address.path) == (host, port, tls, path)
    assert address.head.startswith(f"Host: {authority}\r\n".encode())


BAD = [
    "",
    "ftp://a",
    "a.test/mcp",
    "http://",
    "http://a:99999",
    "http://[::1",
    "http://a\r\nb/",
    "http://a b/",
    "file:///etc/passwd",
    "http://" + "\u00e9" * 99,
    "http://a..b/",
    "http://.a/",
    "http://./",
    "http://" + "a" * 70 + "/",
    "http://" + "a" * 70 + ".test/",
]


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_leads_nowhere_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(UpstreamUnreachable) as failed:
        address_of(url, {})
    assert failed.value.executed == "no"
    assert url in ("", "http://") or url not in failed.value.text


def test_userinfo_becomes_basic_authorization_unless_the_config_has_its_own() -> None:
    basic = base64.b64encode(b"us@er:p:w").decode()
    assert f"Authorization: Basic {basic}\r\n" in head("http://us%40er:p%3Aw@a.test/")
    assert "us" not in address_of("http://us:pw@a.test/x", {}).path.decode()
    own = head("http://us:pw@a.test/", authorization="Bearer t")
    assert "Basic" not in own and "authorization: Bearer t\r\n" in own


def test_what_the_client_decides_cannot_be_configured() -> None:
    lines = head("http://a.test/", Host="evil", CONNECTION="close", **{"Content-Length": "0", "Mcp-Session-Id": "x", "X-Own": "1"})
    assert "evil" not in lines and "close" not in lines and "Mcp" not in lines
    assert "X-Own: 1\r\n" in lines


@pytest.mark.parametrize(
    ("name", "value"), [("A\r\nB", "x"), ("a", "x\r\nB: y"), ("a b", "x"), ("", "x"), ("a", "\u20ac"), ("a", "x\0"), ("a:", "x")]
)
def test_headers_cannot_be_smuggled(name: str, value: str) -> None:
    with pytest.raises(UpstreamUnreachable, match="configured header"):
        address_of("http://a.test/", {name: value})
