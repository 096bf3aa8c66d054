"""Names that people choose: which can be, and which count as one."""

import pytest

from plughub.identity.usernames import RESERVED, likeness, normal_username
from plughub.kit.errors import Invalid


@pytest.mark.requirement("users.usernames")
@pytest.mark.parametrize(("given", "kept"), [("Ada", "ada"), (" a-1-b ", "a-1-b"), ("x" * 30, "x" * 30), ("007", "007")])
def test_a_name_is_kept_in_lower_case(given: str, kept: str) -> None:
    assert normal_username(given) == kept


@pytest.mark.requirement("users.usernames")
@pytest.mark.parametrize(
    "given",
    ["", "ab", "x" * 31, "a b", "a_b", "a.b", "-ab", "ab-", "a--b", "аda", "adа", "ａｄａ", "ad\u200ba", "ada\n-x", "ada\0", "ädä", "İda"],
)
def test_letters_of_other_scripts_and_odd_hyphens_are_refused(given: str) -> None:
    with pytest.raises(Invalid) as raised:
        normal_username(given)
    assert raised.value.details["field"] == "username"


@pytest.mark.requirement("users.usernames")
@pytest.mark.parametrize("given", [*sorted(RESERVED)[:3], "Admin", "r00t", "ad-min", "a-p-i", "well-known"])
def test_names_that_are_kept_free_are_so_in_every_likeness(given: str) -> None:
    with pytest.raises(Invalid, match="reserved"):
        normal_username(given)


@pytest.mark.requirement("users.usernames")
def test_names_that_look_alike_are_one() -> None:
    assert likeness("paypal") == likeness("pay-pa1") == likeness("p-a-y-p-a-l")
    assert likeness("ada") != likeness("adb")
