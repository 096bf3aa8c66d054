"""The nouns between the gateway and a server: what is needed to reach it, what is asked, what comes back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Protocol

from plughub.protocol.facts import Era, Facts, RawJson

Transport = Literal["STDIO", "SSE", "STREAMABLE_HTTP"]
Status = Literal["connected", "connecting", "disconnected", "error", "disabled", "quarantined"]


@dataclass(frozen=True, slots=True)
class Target:
    """All that is needed to reach one server; secrets are in the clear here, so it is never logged or rendered.
    `secret_args` follow `args` on the command line.

    `revision` grows with every change of the configuration; a connection made for an older revision is closed.
    `call_timeout_s` and `start_timeout_s` are the server's own times, None = the hub's; they may change within a revision.
    `capture`: arguments and results of its calls are kept in the log; it may change within a revision.
    `private_networks`: None = every private or loopback address may be dialled (the operator's own servers), else only these.
    """

    server_id: str
    space_id: str
    organization_id: str
    slug: str
    transport: Transport
    revision: int
    enabled: bool = True
    command: str = ""
    args: tuple[str, ...] = ()
    secret_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    private_networks: tuple[IPv4Network | IPv6Network, ...] | None = ()
    call_timeout_s: float | None = None
    start_timeout_s: float | None = None
    capture: bool = False

    def __repr__(self) -> str:
        return f"Target({self.server_id}, {self.transport}, revision={self.revision})"


# What a server sends while a request runs: (method, the message's params: key -> raw JSON value).
Notify = Callable[[str, dict[str, RawJson]], None]
# A server's own request to the client that asked: (method, raw params) -> the client's answer.
Question = Callable[[str, RawJson], "Awaitable[Answer]"]


# What a client may declare that it can be asked, as it stands in raw capabilities, and the sign of names that are spelt otherwise.
_ASKED_OF_CLIENTS = (b'"sampling"', b'"elicitation"', b'"roots"', b"\\")
# How long a client, most often a person, may take to answer; the call that the answer is for waits so long.
ANSWER_S = 600.0


@dataclass(slots=True)
class Peer:
    """Whoever asked, as long as the request runs.

    `capabilities` is the raw object that its client declared, empty for none: only then may a server ask it anything, through `ask`.
    `info` is the client's own description, `log_level` what it wants to hear; both raw. `holder` names the state that servers may keep
    for it (a session, a key).
    """

    notify: Notify
    ask: Question | None = None
    capabilities: RawJson = b""
    info: RawJson | None = None
    log_level: RawJson | None = None
    holder: str = ""
    modern: bool = False  # it understands `input_required`, so that a server of its own revision is answered without the hub

    @property
    def particular(self) -> bool:
        """Whether a handshake server must know it before it is asked: then it gets a connection of its own for that time."""
        declared = self.capabilities
        # Most clients declare nothing, and every call asks.
        return self.log_level is not None or (len(declared) > 2 and any(name in declared for name in _ASKED_OF_CLIENTS))


@dataclass(slots=True)
class Ask:
    """One request to a server. `params` and `meta` map keys to raw JSON values; the upstream writes the envelope anew.

    `meta` is the caller's `_meta` without `progressToken` and without `io.modelcontextprotocol/*`.
    `name` is what goes into `Mcp-Name` (params.name or params.uri) on 2026-07-28.
    `headers`: further lines for it, `Mcp-Param-*`, whole with their line ends.
    `peer.notify` hears every notification of this request; with `progress` the upstream asks for progress under a token of its own.
    """

    method: str
    params: Mapping[str, RawJson]
    timeout_s: float
    name: str | None = None
    meta: Mapping[str, RawJson] | None = None
    peer: Peer | None = None
    progress: bool = False
    headers: bytes = b""


@dataclass(slots=True)
class Answer:
    """What came back: exactly one of the two is set, both raw JSON, valid UTF-8."""

    result: RawJson | None = None
    error: RawJson | None = None


class Upstream(Protocol):
    """A live connection to one server, shared by the callers of a space."""

    facts: Facts

    async def request(self, ask: Ask) -> Answer:
        """Ask and wait. Raises UpstreamUnreachable, UpstreamTimeout or Unavailable; cancelling it cancels upstream too."""
        ...


class Hooks(Protocol):
    """What `upstream` reports; `app` wires it to the domains, so that upstream knows none of them."""

    def status(self, target: Target, status: Status, error: str | None) -> None:
        """The connection's state changed; `error` is a sentence without secrets."""

    def log(self, target: Target, line: str) -> None:
        """A line of the server's stderr, or a note of ours about its behaviour."""

    def notification(self, target: Target, method: str, params: dict[str, RawJson]) -> None:
        """A notification that belongs to no running request (`notifications/tools/list_changed` and the like)."""


__all__ = ["Answer", "Ask", "Era", "Facts", "Hooks", "Notify", "Peer", "Question", "RawJson", "Status", "Target", "Transport", "Upstream"]
