"""Every setting has a sentence, and the page that lists them is the generated one."""

from pydantic import BaseModel, Field

from docs.settings_page import PAGE, render, row
from plughub.settings import Settings

FIELDS = 60


def undocumented(settings: type[BaseModel]) -> list[str]:
    """Names of fields without a description."""
    return [name for name, field in settings.model_fields.items() if not (field.description or "").strip()]


def test_every_setting_is_described() -> None:
    assert undocumented(Settings) == []


def test_a_setting_without_a_description_is_caught() -> None:
    class Careless(BaseModel):
        good: int = Field(1, description="Why")
        bad: int = 2

    assert undocumented(Careless) == ["bad"]


def test_there_are_at_most_60_settings() -> None:
    assert len(Settings.model_fields) <= FIELDS


def test_the_page_is_the_generated_one() -> None:
    assert PAGE.read_text() == render(), "run `make docs`"


def test_a_row_shows_the_variable_its_default_and_its_meaning() -> None:
    class Small(BaseModel):
        quiet: bool = Field(False, description="Say a|b")

    assert row("quiet", Small.model_fields["quiet"]) == "| `PLUGHUB_QUIET` | `false` | Say a\\|b |\n"
