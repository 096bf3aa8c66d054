"""Writes the generated part of `contract/`: `python -m plughub.contract`."""

from pathlib import Path

from plughub.api.openapi import render_openapi
from plughub.api.postman import render_postman
from plughub.app import create_app
from plughub.data_dir import Secrets
from plughub.events.document import render_events
from plughub.keys.service import Peppers
from plughub.kit.crypto import Sealer
from plughub.settings import Settings

CONTRACT = Path("contract")


def main() -> None:
    """Write every generated file, below the folder it is run in. Nothing is started: the rows alone are read."""
    nothing = bytes(32)
    application = create_app(Settings(), Secrets(Peppers({1: nothing}), Sealer({1: nothing})))
    CONTRACT.mkdir(exist_ok=True)
    (CONTRACT / "openapi.json").write_text(render_openapi(application.rows))
    (CONTRACT / "events.json").write_text(render_events())
    (CONTRACT / "postman.json").write_text(render_postman(application.rows))


if __name__ == "__main__":
    main()
