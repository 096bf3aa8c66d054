"""The application: builds the parts, ties them together, starts and stops them in order."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from plughub.api import (
    access,
    admin_organizations,
    audit,
    auth,
    cli_auth,
    client_files,
    contents,
    keys,
    lists,
    logs,
    mcp_servers,
    mcps,
    oauth,
    oauth_apps,
    organizations,
    profiles,
    projects,
    registry,
    registry_admin,
    registry_search,
    registry_v01,
    server_logs,
    server_operations,
    servers,
    system,
    v1_organization,
)
from plughub.api.framework import build_framework
from plughub.api.openapi import render_openapi
from plughub.api.postman import render_postman
from plughub.api.render import render_api, render_oauth, render_v1
from plughub.api.tools import ToolDoor
from plughub.cluster.forms import make_limits
from plughub.dashboard import account_pages, authorize_pages, device_pages
from plughub.dashboard.render import render_error
from plughub.data_dir import Secrets
from plughub.db.audit import Chain
from plughub.db.engine import Database, database_url
from plughub.db.migrate import migrate
from plughub.db.writer import BatchingWriter
from plughub.door.dispatch import Dispatcher
from plughub.door.record import RequestLog
from plughub.door.refusals import RefusalTrail
from plughub.door.routes import Route, RouteTable
from plughub.door.stats import DoorStats
from plughub.events.follower import Follower
from plughub.events.tail import Tail
from plughub.first_start import FirstStart, check_secrets, prepare, prepare_owner
from plughub.gateway.admission import Admission
from plughub.gateway.catalog import Catalog
from plughub.gateway.cookies import Cookies
from plughub.gateway.exchange import Exchange
from plughub.gateway.hub import Hub
from plughub.gateway.listening import Listening
from plughub.gateway.metrics import HubState
from plughub.gateway.parked import ParkingLot
from plughub.gateway.probes import Probes
from plughub.gateway.streams import OpenStreams
from plughub.gateway.tokens import Tokens
from plughub.gateway.usage_alarms import UsageAlarms
from plughub.identity.accounts import Accounts, Crypto
from plughub.identity.session_directory import SessionDirectory
from plughub.jobs import announce_keys, letter, prune_events, prune_health, prune_oauth, prune_people, sync_registries
from plughub.jobs.loop import JobLoop
from plughub.keys.directory import KeyDirectory
from plughub.keys.uses import KeyUses
from plughub.kit.clock import Clock, SystemClock
from plughub.mcp import endpoint, sse_door
from plughub.mcp.render import renderer as mcp_renderer
from plughub.mcp.sessions import Sessions
from plughub.oauth.documents import Documents
from plughub.oauth.secret import Digests
from plughub.oauth.token_directory import TokenDirectory
from plughub.profiles.directory import ProfileDirectory
from plughub.registry.entries import load_catalogue
from plughub.registry.parts import Registry
from plughub.servers.directory import ServerDirectory
from plughub.servers.logs import ServerLogs
from plughub.servers.status import StatusBoard
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from plughub.wiring import Wiring


@dataclass(slots=True)
class Application:
    """The ASGI application with what its owner may want to look at: the hub, and after the start what the first start made."""

    asgi: Dispatcher
    hub: Hub
    rows: Sequence[Route]
    secrets: Secrets
    wiring: Wiring
    sessions: Sessions
    refusals: RefusalTrail
    first: FirstStart | None = None
    stack: AsyncExitStack | None = None

    async def start(self) -> None:
        """Bring the database to the newest schema, see that the secrets belong to it, and start every part; once.

        Raises SecretsLost, SchemaUnknown, Invalid (the operator's account in the settings), SQLAlchemyError, OSError, with nothing left
        running.
        """
        if self.stack is not None:
            return
        async with AsyncExitStack() as stack:
            database = self.hub.database
            stack.push_async_callback(database.aclose)
            await migrate(database)
            await check_secrets(database, self.secrets)
            async with database.unit_of_work() as uow:
                await load_catalogue(uow)
            self.first = await prepare_owner(self.hub.accounts, await prepare(database, self.secrets))
            stack.callback(self.sessions.close)
            stack.callback(self.asgi.close)
            await _start(self.hub, self.wiring, stack)
            self.refusals.start()
            stack.push_async_callback(self.refusals.aclose)
            self.stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop what `start` started, in the reverse order."""
        if self.stack is not None:
            stack, self.stack = self.stack, None
            await stack.aclose()


def rows_of(hub: Hub, sessions: Sessions) -> list[Route]:
    """Every route of the API; the pages are beside it."""
    tools = ToolDoor(hub)
    return [
        *registry.ROUTES,  # the Postman collection runs in this order, and removes what was installed with the other servers
        *client_files.ROUTES,  # the framework takes the first row that fits: `/api/servers/export` before `/api/servers/{uuid}`
        *servers.routes(tools),
        *mcp_servers.ROUTES,
        *mcps.routes(tools),  # before what is done to them: the Postman collection runs in this order
        *server_operations.ROUTES,
        *server_logs.routes(hub),
        *lists.ROUTES,
        *contents.routes(hub),
        *projects.ROUTES,
        *profiles.ROUTES,
        *registry_search.ROUTES,
        *registry_v01.ROUTES,
        *keys.ROUTES,
        *auth.ROUTES,
        *oauth.routes(hub),
        *oauth_apps.ROUTES,
        *cli_auth.ROUTES,
        *audit.ROUTES,  # `/api/organizations/activity` before `/api/organizations/{organization_id}`
        *organizations.ROUTES,
        *v1_organization.ROUTES,
        *logs.ROUTES,
        *access.ROUTES,
        *admin_organizations.ROUTES,
        *registry_admin.ROUTES,
        *endpoint.routes(hub, sessions),
        *sse_door.routes(hub, sessions),
        *system.ROUTES,
    ]


def create_app(settings: Settings, secrets: Secrets, clock: Clock | None = None) -> Application:
    """Build everything without touching disk, network or database; the lifespan does that."""
    clock = clock or SystemClock()
    database = Database(database_url(settings), clock, Chain(secrets.peppers.ring))
    board = StatusBoard(clock, settings.cache_entries)
    server_lines = ServerLogs(settings.data_dir / "logs", settings.max_server_log_bytes, clock)
    wiring = Wiring(database, board, server_lines)
    hub = _build_hub(settings, secrets, database, wiring, board, server_lines)
    wiring.attach(hub)
    sessions = Sessions(clock, idle_s=settings.session_idle_s, most_per_key=settings.max_sessions_per_key, node=hub.parking.node)
    database.listeners.append(sessions.follow)
    database.listeners.append(hub.parking.follow)
    rows = rows_of(hub, sessions)
    stats = DoorStats()

    @asynccontextmanager
    async def lifespan(framework: FastAPI) -> AsyncIterator[None]:
        await application.start()
        try:
            yield
        finally:
            await application.stop()

    framework = build_framework(rows, lifespan)
    framework.state.hub = hub
    framework.state.metrics = _metrics(stats, hub)
    framework.state.openapi = cache(lambda: render_openapi(rows))
    framework.state.postman = cache(lambda: render_postman(rows))
    renderers = {"api": render_api, "plain": render_api, "v1": render_v1, "mcp": mcp_renderer(settings.public_url)}
    renderers |= {"oauth": render_oauth, "page": render_error}
    refusals = RefusalTrail(database)
    requests = RequestLog(hub.writer, clock, refusals)
    pages = [*account_pages.routes(hub), *authorize_pages.routes(hub), *device_pages.routes(hub)]
    dispatcher = Dispatcher(RouteTable([*rows, *pages]), framework, hub.admission, renderers, settings, stats, requests)
    application = Application(dispatcher, hub, rows, secrets, wiring, sessions, refusals)
    return application


def _build_hub(settings: Settings, secrets: Secrets, database: Database, wiring: Wiring, board: StatusBoard, lines: ServerLogs) -> Hub:
    clock = database.clock
    follower = Follower(database)
    tail = Tail(database, follower)
    database.listeners.append(tail.follow)
    writer = BatchingWriter(database, settings)
    writer.on_written = tail.grown
    directory = ServerDirectory(database, secrets.sealer, settings, trusted=follower.trusted)
    pool = Pool(settings, wiring, clock=clock)
    key_directory = KeyDirectory(database, secrets.peppers, settings, trusted=follower.trusted)
    cookies = Cookies(settings, SessionDirectory(database, settings, trusted=follower.trusted))
    tokens = TokenDirectory(database, secrets.peppers, settings, trusted=follower.trusted)
    uses = KeyUses(database, settings.cache_entries)
    alarms = UsageAlarms(database)
    limits = make_limits(settings, clock, lambda: follower.live_processes, alarms.sound)
    exchange = Exchange(directory, pool, writer, clock)
    catalog = Catalog(exchange, settings, clock, wiring)
    exchange.header_lines = catalog.header_lines
    return Hub(
        settings=settings,
        clock=clock,
        database=database,
        writer=writer,
        follower=follower,
        tail=tail,
        sealer=secrets.sealer,
        peppers=secrets.peppers,
        keys=key_directory,
        uses=uses,
        servers=directory,
        board=board,
        logs=lines,
        limits=limits,
        alarms=alarms,
        admission=Admission(settings, key_directory, cookies, Tokens(tokens), limits, clock, uses),
        pool=pool,
        exchange=exchange,
        catalog=catalog,
        streams=OpenStreams(clock),
        probes=Probes(exchange, pool, board, database),
        parking=ParkingLot(secrets.sealer, clock),
        profiles=ProfileDirectory(database, settings, trusted=follower.trusted),
        listening=Listening(exchange, pool),
        cookies=cookies,
        digests=Digests(secrets.peppers),
        documents=Documents(settings, clock),
        registry=Registry.of(database, settings, secrets.sealer),
        accounts=Accounts(database, settings, Crypto(dict(secrets.peppers.ring), secrets.sealer)),
    )


async def _start(hub: Hub, wiring: Wiring, stack: AsyncExitStack) -> None:
    """Start in the order of need; the stack stops in the reverse order."""
    stack.push_async_callback(hub.writer.aclose)
    stack.push_async_callback(hub.uses.aclose)
    await hub.follower.start()
    stack.push_async_callback(hub.follower.aclose)
    hub.tail.start()
    stack.push_async_callback(hub.tail.aclose)
    hub.alarms.start()
    stack.push_async_callback(hub.alarms.aclose)
    await hub.limits.start()
    stack.push_async_callback(hub.limits.aclose)
    wiring.start()
    stack.push_async_callback(wiring.aclose)
    await hub.pool.start()
    stack.push_async_callback(hub.pool.aclose)
    stack.push_async_callback(hub.parking.aclose)
    stack.callback(hub.listening.close)
    stack.push_async_callback(hub.documents.aclose)
    stack.push_async_callback(hub.registry.packages.aclose)
    hub.registry.keeper.start()
    stack.push_async_callback(hub.registry.keeper.aclose)
    pruned = (prune_events, prune_health, prune_people, prune_oauth)
    handlers = {job.KIND: job.handler(hub.settings) for job in (*pruned, announce_keys, sync_registries)}
    handlers[letter.KIND] = letter.handler(hub.settings, hub.sealer)
    jobs = JobLoop(hub.database, handlers)
    await jobs.start()
    stack.push_async_callback(jobs.aclose)


def _metrics(stats: DoorStats, hub: Hub) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(stats)
    registry.register(HubState(hub))
    return registry
