"""The parts that a running hub is made of, handed to the doors as one value; `app` builds it."""

from dataclasses import dataclass

from plughub.cluster.limits import Limits
from plughub.db.engine import Database
from plughub.db.writer import BatchingWriter
from plughub.documents.library import Library
from plughub.events.follower import Follower
from plughub.events.live import LiveEvents
from plughub.events.tail import Tail
from plughub.gateway.admission import Admission
from plughub.gateway.catalog import Catalog
from plughub.gateway.cookies import Cookies
from plughub.gateway.exchange import Exchange
from plughub.gateway.listening import Listening
from plughub.gateway.parked import ParkingLot
from plughub.gateway.probes import Probes
from plughub.gateway.rounds import Rounds
from plughub.gateway.streams import OpenStreams
from plughub.gateway.tickets import Tickets
from plughub.gateway.usage_alarms import UsageAlarms
from plughub.identity.accounts import Accounts
from plughub.keys.directory import KeyDirectory
from plughub.keys.service import Peppers
from plughub.keys.uses import KeyUses
from plughub.kit.clock import Clock
from plughub.kit.crypto import Sealer
from plughub.notifications.notifier import Notifier
from plughub.notifications.service import Letters
from plughub.oauth.documents import Documents
from plughub.oauth.secret import Digests
from plughub.profiles.directory import ProfileDirectory
from plughub.registry.parts import Registry
from plughub.servers.directory import ServerDirectory
from plughub.servers.logs import ServerLogs
from plughub.servers.status import StatusBoard
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from plughub.upstream.target import Target
from plughub.webhooks.deliverer import Deliverer
from plughub.webhooks.service import Keeper


@dataclass(frozen=True, slots=True)
class Hub:
    """Owned by the application's lifespan: whoever holds it need not close anything."""

    settings: Settings
    clock: Clock
    database: Database
    writer: BatchingWriter
    follower: Follower
    tail: Tail
    live: LiveEvents
    tickets: Tickets
    sealer: Sealer
    peppers: Peppers
    keys: KeyDirectory
    uses: KeyUses
    servers: ServerDirectory
    board: StatusBoard
    logs: ServerLogs
    limits: Limits
    alarms: UsageAlarms
    admission: Admission
    pool: Pool
    exchange: Exchange
    catalog: Catalog
    streams: OpenStreams
    probes: Probes
    rounds: Rounds
    letters: Letters
    notifier: Notifier
    parking: ParkingLot
    profiles: ProfileDirectory
    listening: Listening
    cookies: Cookies
    accounts: Accounts
    digests: Digests
    documents: Documents
    webhooks: Keeper
    deliverer: Deliverer
    library: Library
    registry: Registry

    def call_timeout_s(self, target: Target) -> float:
        """How long a call of this server waits when the caller does not say."""
        return target.call_timeout_s or self.settings.call_timeout_s
