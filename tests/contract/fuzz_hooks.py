"""Loaded by Schemathesis: keeps a run from revoking the key that it runs with, after which every answer would be a 410."""

import os
from typing import Any

import schemathesis

OWN_KEY = os.environ["FUZZ_OWN_KEY"]
OTHER = "key_0000000000000000000000"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Asks about another key in place of its own."""
    if case.path_parameters and case.path_parameters.get("key_id") == OWN_KEY:
        case.path_parameters["key_id"] = OTHER
