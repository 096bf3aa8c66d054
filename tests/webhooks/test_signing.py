"""Signatures, judged by the official libraries, by the documents' check, and by published vectors."""

import hashlib
import hmac
import time

import pytest
from hypothesis import given, settings

from plughub.kit.js_json import dumps
from plughub.webhooks.formatters import with_retry_count
from plughub.webhooks.signing import Signer, generate_secret, secret_defect
from tests.kit.test_js_json import VALUES
from tests.webhooks.judges import Sent, headers_of, node_judges, python_judges

SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "It's a Secret to Everybody", "schlüssel-日本")
OLD, NEW = SECRETS[0], "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def sent(secret: str, body: str, signer: Signer | None = None) -> Sent:
    lines = (signer or Signer.of(secret)).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", int(time.time()), body.encode())
    return Sent(secret, headers_of(lines), body)


@pytest.mark.requirement("webhooks.signatures")
def test_every_official_library_and_the_documented_check_accept_every_form_of_secret() -> None:
    bodies = ['{"test":2432232314}', dumps({"id": "evt_1", "data": {"1": 1.5, "ü": "\u2028"}, "retry_count": 0})]
    all_sent = [sent(secret, body) for secret in (*SECRETS, generate_secret()) for body in bodies]
    assert [python_judges(each) for each in all_sent] == [[True, True]] * len(all_sent)
    assert node_judges(all_sent) == [{"standard": True, "svix": True, "documented": True}] * len(all_sent)


@pytest.mark.requirement("webhooks.signatures")
def test_a_changed_byte_or_header_is_refused_by_all() -> None:
    good = sent(OLD, '{"test":2432232314}')
    bad = [
        Sent(OLD, good.headers, '{"test":2432232315}'),
        Sent(NEW, good.headers, good.body),
        Sent(OLD, {**good.headers, "webhook-id": "msg_other", "x-pluggedin-signature": "0" * 64}, good.body),
        Sent(OLD, {**good.headers, "webhook-timestamp": str(int(time.time()) - 9), "x-pluggedin-signature": ""}, good.body),
    ]
    assert [python_judges(each) for each in bad] == [[False, False]] * len(bad)
    assert node_judges(bad) == [{"standard": False, "svix": False, "documented": False}] * len(bad)


@pytest.mark.requirement("webhooks.rotation")
def test_during_an_overlap_both_secrets_verify_and_the_documented_header_stays_on_the_old_one() -> None:
    signer = Signer.of(NEW, OLD)
    both = [sent(secret, '{"a":1}', signer) for secret in (OLD, NEW)]
    assert [python_judges(each) for each in both] == [[True, True]] * 2
    assert node_judges(both) == [
        {"standard": True, "svix": True, "documented": True},
        {"standard": True, "svix": True, "documented": False},
    ]


@settings(max_examples=3, deadline=None)
@given(VALUES)
def test_whatever_the_payload_all_verify(value: object) -> None:
    bodies = [with_retry_count(dumps({"data": value, "retry_count": 0}), count).decode() for count in (0, 3)]
    all_sent = [sent(OLD, body) for body in bodies]
    assert [python_judges(each) for each in all_sent] == [[True, True]] * 2
    assert node_judges(all_sent) == [{"standard": True, "svix": True, "documented": True}] * 2


def test_the_published_vectors_come_out() -> None:
    github = headers_of(Signer.of("It's a Secret to Everybody").headers("msg_1", 0, b"Hello, World!"))
    assert github["x-pluggedin-signature"] == "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    # Of the libraries' own tests: `{id}.{timestamp}.{body}` under the decoded key.
    headers = headers_of(Signer.of(OLD).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'))
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_no_secret_stands_in_a_signature() -> None:
    lines = Signer.of("password-of-mine").headers("msg_1", 1, b"{}")
    assert b"password" not in lines
    assert hmac.new(b"password-of-mine", b"{}", hashlib.sha256).hexdigest().encode() in lines


@pytest.mark.parametrize(
    ("secret", "defect"),
    [
        ("12345678", None),
        pytest.param(generate_secret(), None, id="generated"),
        ("whsec_" + "A" * 32, None),
        ("1234567", "8 to 200 characters"),
        ("x" * 201, "8 to 200 characters"),
        ("whsec_not base64!", "comes base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "comes base64"),
        ("whsec_MTIz", "at least 8 bytes"),
    ],
)
def test_a_secret_of_the_wrong_form_is_named(secret: str, defect: str | None) -> None:
    found = secret_defect(secret)
    assert found is None if defect is None else found is not None and defect in found
