"""What an error tells of the value that was wrong."""

import pytest

from plughub.api.framework import echo


@pytest.mark.requirement("errors.value-is-cut-and-masked")
@pytest.mark.parametrize("field", ["password", "config.url", "callback_url", "url", "rate_limit.token", "env.PORT", "headers.X", "apiKey"])
def test_what_may_be_a_secret_is_hidden(field: str) -> None:
    assert echo(field, 5) == echo(field, "x") == "***"


@pytest.mark.requirement("errors.value-is-cut-and-masked")
@pytest.mark.parametrize("field", ["rate_limit.hourly", "limits.hourly", "name", "limit"])
def test_a_word_that_only_holds_such_letters_is_shown(field: str) -> None:
    assert echo(field, 5) == 5 and echo(field, "x" * 300) == "x" * 200
