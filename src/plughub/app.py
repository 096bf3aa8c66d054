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
    alerts,
    audit,
    auth,
    batch,
    cli_auth,
    client_files,
    collections,
    contents,
    document_files,
    documents,
    events,
    keys,
    leaving,
    lists,
    logs,
    mcp_servers,
    mcps,
    notifications,
    oauth,
    oauth_apps,
    organizations,
    profiles,
    projects,
    rag,
    registry,
    registry_admin,
    registry_search,
    registry_v01,
    server_logs,
    server_operations,
    servers,
    system,
    usage,
    users,
    v1_organization,
    webhooks,
)
from plughub.api.batch import BatchDoor
from plughub.api.framework import build_framework, writes_in_work
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
from plughub.documents.library import Library
from plughub.door.dispatch import Dispatcher
from plughub.door.once import Once
from plughub.door.record import RequestLog
from plughub.door.refusals import RefusalTrail
from plughub.door.routes import Route, RouteTable
from plughub.door.stats import DoorStats
from plughub.events.follower import Follower
from plughub.events.live import LiveEvents
from plughub.events.tail import Tail
from plughub.first_start import FirstStart, check_secrets, prepare, prepare_owner
from plughub.gateway.admission import Admission
from plughub.gateway.call_stats import CallStats
from plughub.gateway.catalog import Catalog
from plughub.gateway.cookies import Cookies
from plughub.gateway.exchange import Exchange
from plughub.gateway.hub import Hub
from plughub.gateway.listening import Listening
from plughub.gateway.metrics import HubState
from plughub.gateway.parked import ParkingLot
from plughub.gateway.probes import Probes
from plughub.gateway.rounds import Rounds
from plughub.gateway.streams import OpenStreams
from plughub.gateway.tickets import Tickets
from plughub.gateway.tokens import Tokens
from plughub.gateway.tracing import open_traces
from plughub.gateway.usage_alarms import UsageAlarms
from plughub.identity.accounts import Accounts, Crypto
from plughub.identity.session_directory import SessionDirectory
from plughub.jobs import (
    announce_keys,
    embed_documents,
    letter,
    prune_answers,
    prune_deliveries,
    prune_documents,
    prune_events,
    prune_health,
    prune_notifications,
    prune_oauth,
    prune_people,
    prune_usage,
    remove_organization,
    roll_up_usage,
    sync_registries,
    watch_usage,
)
from plughub.jobs.loop import JobLoop
from plughub.keys.directory import KeyDirectory
from plughub.keys.uses import KeyUses
from plughub.kit.clock import Clock, SystemClock
from plughub.mcp import endpoint, sse_door
from plughub.mcp.render import renderer as mcp_renderer
from plughub.mcp.sessions import Sessions
from plughub.notifications.notifier import Notifier
from plughub.notifications.service import Letters
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
from plughub.webhooks.deliverer import Deliverer
from plughub.webhooks.service import Keeper
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
            self.asgi.traces = open_traces(self.hub.settings.otlp_endpoint)
            if self.asgi.traces is not None:
                stack.push_async_callback(self.asgi.traces.aclose)
            await _start(self.hub, self.wiring, stack)
            self.refusals.start()
            stack.push_async_callback(self.refusals.aclose)
            self.stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop what `start` started, in the reverse order."""
        if self.stack is not None:
            stack, self.stack = self.stack, None
            await stack.aclose()


def rows_of(hub: Hub, sessions: Sessions, batches: BatchDoor) -> list[Route]:
    """Every route of the API; the pages are beside it."""
    tools = ToolDoor(hub)
    return [
        *events.routes(hub),
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
        *document_files.routes(hub),  # its POST is the collection's first of documents
        *documents.ROUTES,
        *rag.ROUTES,
        *collections.ROUTES,
        *registry_search.ROUTES,
        *registry_v01.ROUTES,
        *keys.ROUTES,
        *auth.ROUTES,
        *users.ROUTES,
        *oauth.routes(hub),
        *oauth_apps.ROUTES,
        *cli_auth.ROUTES,
        *audit.ROUTES,  # `/api/organizations/activity` before `/api/organizations/{organization_id}`
        *organizations.ROUTES,
        *leaving.ROUTES,
        *v1_organization.ROUTES,
        *logs.ROUTES,
        *usage.ROUTES,
        *alerts.ROUTES,
        *notifications.ROUTES,
        *access.ROUTES,
        *webhooks.ROUTES,
        *batch.routes(batches),
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
    batches = BatchDoor(hub)
    rows = rows_of(hub, sessions, batches)
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
    once = Once(hub, writes_in_work)
    dispatcher = Dispatcher(RouteTable([*rows, *pages]), framework, hub, renderers, stats, requests, once)
    batches.dispatcher = dispatcher
    application = Application(dispatcher, hub, rows, secrets, wiring, sessions, refusals)
    return application


def _build_hub(settings: Settings, secrets: Secrets, database: Database, wiring: Wiring, board: StatusBoard, lines: ServerLogs) -> Hub:
    clock = database.clock
    follower = Follower(database)
    tail = Tail(database, follower)
    database.listeners.append(tail.follow)
    writer = BatchingWriter(database, settings)
    writer.on_written = tail.grown
    live = LiveEvents(database, tail)
    writer.in_haste = lambda: live.watched
    directory = ServerDirectory(database, secrets.sealer, settings, trusted=follower.trusted)
    pool = Pool(settings, wiring, clock=clock)
    key_directory = KeyDirectory(database, secrets.peppers, settings, trusted=follower.trusted)
    cookies = Cookies(settings, SessionDirectory(database, settings, trusted=follower.trusted))
    tickets = Tickets(database)
    tokens = Tokens(TokenDirectory(database, secrets.peppers, settings, trusted=follower.trusted), tickets)
    keeper = Keeper(secrets.sealer, settings.allow_private_addresses)
    deliverer = Deliverer(database, keeper, tail, owner=follower.node_id, live_processes=lambda: follower.live_processes)
    database.listeners.append(deliverer.follow)
    uses = KeyUses(database, settings.cache_entries)
    alarms = UsageAlarms(database)
    limits = make_limits(settings, clock, lambda: follower.live_processes, alarms.sound)
    exchange = Exchange(directory, pool, writer, clock, CallStats(settings.metrics_servers))
    catalog = Catalog(exchange, settings, clock, wiring)
    exchange.header_lines = catalog.header_lines
    probes = Probes(exchange, pool, board, database, wiring)
    letters = Letters(secrets.sealer, enabled=bool(settings.smtp_url))
    notifier = Notifier(database, letters)
    database.listeners.append(notifier.follow)
    return Hub(
        settings=settings,
        clock=clock,
        database=database,
        writer=writer,
        follower=follower,
        tail=tail,
        live=live,
        tickets=tickets,
        sealer=secrets.sealer,
        peppers=secrets.peppers,
        keys=key_directory,
        uses=uses,
        servers=directory,
        board=board,
        logs=lines,
        limits=limits,
        alarms=alarms,
        admission=Admission(settings, key_directory, cookies, tokens, limits, clock, uses),
        pool=pool,
        exchange=exchange,
        catalog=catalog,
        streams=OpenStreams(clock),
        probes=probes,
        letters=letters,
        notifier=notifier,
        rounds=Rounds(probes, exchange, pool, database, settings.probe_interval_s),
        parking=ParkingLot(secrets.sealer, clock),
        profiles=ProfileDirectory(database, settings, trusted=follower.trusted),
        listening=Listening(exchange, pool),
        cookies=cookies,
        digests=Digests(secrets.peppers),
        documents=Documents(settings, clock),
        webhooks=keeper,
        deliverer=deliverer,
        library=Library(database, settings, trusted=follower.trusted),
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
    stack.callback(hub.live.close)
    hub.alarms.start()
    stack.push_async_callback(hub.alarms.aclose)
    await hub.limits.start()
    stack.push_async_callback(hub.limits.aclose)
    await hub.notifier.start()
    stack.push_async_callback(hub.notifier.aclose)
    await wiring.start()
    stack.push_async_callback(wiring.aclose)
    await hub.pool.start()
    stack.push_async_callback(hub.pool.aclose)
    hub.rounds.start()
    stack.push_async_callback(hub.rounds.aclose)
    stack.push_async_callback(hub.parking.aclose)
    stack.callback(hub.listening.close)
    stack.push_async_callback(hub.documents.aclose)
    await hub.deliverer.start()
    stack.push_async_callback(hub.deliverer.aclose)
    hub.library.start()
    stack.push_async_callback(hub.library.aclose)
    stack.push_async_callback(hub.registry.packages.aclose)
    hub.registry.keeper.start()
    stack.push_async_callback(hub.registry.keeper.aclose)
    pruned = (prune_events, prune_deliveries, prune_health, prune_people, prune_oauth, prune_usage, prune_notifications, prune_answers)
    periodic = (*pruned, prune_documents, announce_keys, roll_up_usage, sync_registries)
    handlers = {job.KIND: job.handler(hub.settings) for job in periodic}
    handlers[watch_usage.KIND] = watch_usage.handler(hub.sealer)
    handlers[remove_organization.KIND] = remove_organization.handler()
    handlers[letter.KIND] = letter.handler(hub.settings, hub.sealer)
    if hub.library.meaning.missing is None:
        handlers[embed_documents.KIND] = embed_documents.handler(hub.library)
    jobs = JobLoop(hub.database, handlers)
    await jobs.start()
    stack.push_async_callback(jobs.aclose)


def _metrics(stats: DoorStats, hub: Hub) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(stats)
    registry.register(hub.exchange.stats)
    registry.register(HubState(hub))
    return registry
