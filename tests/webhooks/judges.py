"""The official libraries, in Python and under Node, as judges of deliveries."""

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from standardwebhooks import Webhook as Standard
from standardwebhooks import WebhookVerificationError
from svix.webhooks import Webhook as Svix
from svix.webhooks import WebhookVerificationError as SvixError

from plughub.webhooks.signing import SECRET_PREFIX
from tests.flows.packages import NODE, npm_folder

CLIENTS = Path(__file__).parent / "clients"
NPM_PACKAGES = ("standardwebhooks@1.1.1", "svix@1.99.1", "express@5.1.0")


@dataclass(frozen=True)
class Sent:
    """A delivery as a receiver holds it, and the secret that it knows."""

    secret: str
    headers: Mapping[str, str]
    body: str


def headers_of(lines: bytes) -> dict[str, str]:
    """The signed headers, names in lower case."""
    pairs = [line.split(": ", 1) for line in lines.decode().split("\r\n") if line]
    return {name.lower(): value for name, value in pairs}


def python_judges(sent: Sent) -> list[bool]:
    """What `standardwebhooks` and `svix` of PyPI say."""
    found = []
    # Of these libraries a key that is no base64 is given as bytes, or encoded.
    typed = sent.secret.startswith(SECRET_PREFIX)
    secret = sent.secret if typed else SECRET_PREFIX + base64.b64encode(sent.secret.encode()).decode()
    for library, refused in ((Standard, WebhookVerificationError), (Svix, SvixError)):
        try:
            library(secret).verify(sent.body, dict(sent.headers))
            found.append(True)
        except (refused, ValueError):
            found.append(False)
    return found


def node_judges(all_sent: list[Sent]) -> list[dict[str, bool]]:
    """What `standardwebhooks` and `svix` of npm and the documents' check say of each."""
    folder = npm_folder("webhooks", NPM_PACKAGES)
    script = folder / "verify.mjs"
    shutil.copy(CLIENTS / "verify.mjs", script)
    lines = "\n".join(json.dumps({"secret": sent.secret, "headers": dict(sent.headers), "body": sent.body}) for sent in all_sent)
    run = subprocess.run([str(NODE), str(script)], input=lines, capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]
