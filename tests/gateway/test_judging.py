"""A key that no rule has anything to say of is let in without asking them; every other is asked of."""

from dataclasses import replace
from itertools import product
from typing import Any, cast

import pytest

from plughub.gateway.admission import Admission, Arrival
from plughub.keys.directory import KeyEntry
from plughub.keys.networks import AddressList
from plughub.keys.uses import Use
from plughub.kit.caller import SCOPES, TIERS, Caller
from plughub.kit.errors import HubError
from tests.serving import Served

pytestmark = pytest.mark.anyio
CALLER = Caller("o", "s", "live", "k", "public", SCOPES, None, TIERS["free"], operator=False, stdio_allowed=False)


class Asked:
    def __init__(self, *, origin: bool, query: bytes) -> None:
        self.headers = {b"origin": b"https://example.com"} if origin else {}
        self.scope = {"query_string": query}


def outcome(admission: Admission, entry: KeyEntry, arrival: Arrival, *, by_rules: bool) -> object:
    try:
        if not by_rules:
            return admission._judge(entry, arrival, "192.0.2.1")
        for _, rule in admission.rules:
            rule(entry, arrival, "192.0.2.1")
        return entry.caller
    except HubError as error:
        return type(error), error.text


@pytest.mark.parametrize("refuse_test_keys", [False, True])
async def test_what_is_let_in_at_once_is_what_every_rule_lets_in(served: Served, refuse_test_keys: bool) -> None:
    admission = served.app.hub.admission
    admission._refuse_test_keys = refuse_test_keys
    now = served.clock.time()
    seen = set()
    for status, until, environment, addresses, kind, origin, query in product(
        ("active", "suspended", "revoked"),
        (None, now - 1, now + 1),
        ("live", "test"),
        (None, AddressList(["192.0.2.0/24"]), AddressList(["198.51.100.0/24"])),
        ("public", "secret"),
        (False, True),
        (b"", b"key=sk_live_ph_" + b"x" * 38),
    ):
        caller = replace(CALLER, until=until, environment=cast(Any, environment), kind=cast(Any, kind))
        entry = KeyEntry("k", cast(Any, status), until, caller, None, addresses, Use("k", 0))
        arrival = cast(Arrival, Asked(origin=origin, query=query))
        found = outcome(admission, entry, arrival, by_rules=False)
        assert found == outcome(admission, entry, arrival, by_rules=True)
        seen.add(found if isinstance(found, tuple) else "let in")
    assert len(seen) >= 5
