"""Addresses of receivers: tricks are refused when they are written, what names lead to when they are dialled."""

from ipaddress import ip_network

import pytest

from plughub.webhooks.addresses import shown_url, url_defect

GOOD = [
    "https://example.com/hook",
    "http://example.com:8080/a?b=c",
    "https://8.8.8.8/",
    "https://[2606:4700::1111]/x",
    "https://xn--bcher-kva.example/",
]
BAD = [
    "",
    "example.com/hook",
    "ftp://example.com/",
    "file:///etc/passwd",
    "https://",
    "https:///path",
    "https://user:pass@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/ space",
    "https://exam\tple.com/",
    "https://example.com/#fragment",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com:port/",
    "https://ex%61mple.com/",
    "https://bücher.example/",
    "http://localhost/",
    "http://sub.localhost:9/",
    "http://127.0.0.1/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://127.1/",
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1%25eth0]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://0/",
    "http://..../",
]


@pytest.mark.parametrize("url", GOOD)
def test_an_address_on_the_internet_is_taken(url: str) -> None:
    assert url_defect(url, ()) is None


@pytest.mark.requirement("webhooks.addresses")
@pytest.mark.parametrize("url", BAD)
def test_a_trick_is_refused(url: str) -> None:
    assert url_defect(url, ())


def test_what_the_operator_allows_is_taken_and_metadata_never() -> None:
    allowed = (ip_network("127.0.0.0/8"), ip_network("169.254.0.0/16"))
    assert url_defect("http://127.0.0.1:9/", allowed) is None
    assert url_defect("http://localhost:9/", allowed) is None
    assert url_defect("http://169.254.169.254/", allowed)


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    assert shown_url("https://example.com/hook?token=abc&x", whole_path=True) == "https://example.com/hook?token=***&***"
    assert shown_url("https://hooks.slack.com/services/T0/B0/secret", whole_path=False) == "https://hooks.slack.com/***"
