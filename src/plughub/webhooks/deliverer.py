"""Delivers: turns the log into deliveries, sends them, settles what came of it. One in each process; any number share the work."""

import asyncio
import random
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from plughub.db.engine import Database
from plughub.db.unit_of_work import Event, UnitOfWork
from plughub.events.catalogue import WEBHOOK_CREATED, WEBHOOK_DELETED, WEBHOOK_DISABLED, WEBHOOK_UPDATED
from plughub.events.tail import Tail
from plughub.kit.dial import Tls
from plughub.kit.ids import public_id
from plughub.webhooks import outbox, store
from plughub.webhooks.endpoint import OPENS_AFTER, Endpoint
from plughub.webhooks.endpoints import Endpoints
from plughub.webhooks.formatters import with_retry_count
from plughub.webhooks.making import new_rows, settled
from plughub.webhooks.outbox import Held, NewRow, SettledRow
from plughub.webhooks.schedule import MOST_PAUSE_S, gives_up
from plughub.webhooks.sender import GONE, TOTAL_S, Answer, Receiver
from plughub.webhooks.service import Keeper, deed, told
from plughub.webhooks.signing import Signer

# So long a turn waits for more after the first that there is to do: a commit for many costs no more than one for one.
PACE_S = 0.02
SWEEP_S = 1.0
_AGAIN_S = 1.0
_TAKE_OVER_S = 3.0
_SPACES, _EVENTS, _CLAIMS = 50, 1000, 50
# Attempts at once of this process, besides one of each webhook.
_AT_ONCE = 500
_STOP_S = 2.0
_THROTTLES = frozenset((429, 503))
_CHANGES = frozenset((WEBHOOK_CREATED, WEBHOOK_UPDATED, WEBHOOK_DELETED, WEBHOOK_DISABLED))
Result = tuple[Endpoint, Held, Answer, float]
_log = structlog.get_logger("plughub.webhooks")


class Deliverer:
    """Works in turns, each one transaction: settle what came back, make deliveries of what is new in the log, lease what is due.

    What it makes it leases at once, as far as the webhook's room goes, and sends after the commit. Every webhook has its own queue and
    attempts, so none delays another. Bounded: by the webhooks there are, by what each may have leased, by `_AT_ONCE`.
    """

    def __init__(
        self, database: Database, keeper: Keeper, tail: Tail, *, owner: str, live_processes: Callable[[], int] = lambda: 1
    ) -> None:
        self._database = database
        self._clock = database.clock
        self._owner = owner
        self._live_processes = live_processes
        self.tls = Tls()
        self._endpoints = Endpoints(keeper, self.tls, tail, self._grown, self._let_go)
        self._dirty: set[str] = set()
        self._results: list[Result] = []
        self._released: list[tuple[str, float]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._closing = False
        self._stale = True
        self._swept_at = self._took_over_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    # ---- its life

    async def start(self) -> None:
        """Begin. What this hub had under way when it died is due again."""
        if self._database.kind == "sqlite":
            async with self._database.unit_of_work(apart=True) as uow:
                await outbox.take_over(uow, self._owner, everything=True)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Begin no attempt more, give those under way a moment, settle, and let go of what is leased."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for endpoint in self._endpoints:
            self._let_go(endpoint)
        if self._workers:
            _, running = await asyncio.wait(self._workers, timeout=_STOP_S)
            for worker in running:
                worker.cancel()
            if running:
                await asyncio.wait(running)
        self._endpoints.close()
        try:
            if self._results or self._released:
                await self._work([], [])
        except (SQLAlchemyError, OSError) as error:
            _log.warning("deliveries_not_settled", error=str(error))

    async def follow(self, events: Sequence[Event]) -> None:
        """A listener of the database: webhooks that changed are read anew."""
        if any(event.name in _CHANGES for event in events):
            self.wake()

    def wake(self) -> None:
        """There may be something new or due: look now."""
        self._stale = True
        self._woken.set()

    @property
    def busy(self) -> bool:
        """Whether there is something that a turn would do, besides what a look at the database would find."""
        return bool(self._results or self._released or self._dirty or self._workers or self._hungry())

    async def quiet(self) -> None:
        """Return when no attempt is under way."""
        while self._workers:
            await asyncio.wait(self._workers)

    def _grown(self, space_id: str) -> None:
        self._dirty.add(space_id)
        self._woken.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SWEEP_S if self._stale or len(self._endpoints) else None):
                    await self._woken.wait()
                await asyncio.sleep(PACE_S)
            except TimeoutError:
                pass
            self._woken.clear()
            # gather hands over the failure as a value, whatever it is, and passes a cancellation on.
            [failure] = await asyncio.gather(self.turn(), return_exceptions=True)
            if failure is not None:
                # What could not be settled is kept for the next turn, what could not be made is still in the log.
                expected = isinstance(failure, SQLAlchemyError | OSError)
                _log.warning("webhooks_turn_failed", error=str(failure), exc_info=None if expected else failure)
                await asyncio.sleep(_AGAIN_S)
                self._woken.set()

    # ---- a turn

    async def turn(self) -> None:
        """Do what there is to do. Raises SQLAlchemyError, OSError, with nothing done."""
        due: Sequence[str] = ()
        # Without a webhook there is nothing to look for: one that is made is heard of, whoever makes it.
        if self._stale or (len(self._endpoints) and self._clock.monotonic() - self._swept_at >= SWEEP_S):
            self._stale = False
            try:
                due = await self._sweep()
            except BaseException:
                self._stale = True
                raise
        known = [endpoint for id_ in due if (endpoint := self._endpoints.find(id_)) is not None]
        # Those that have leased least first: who has much to do does not keep the others waiting.
        wanted = sorted({*known, *self._hungry()}, key=lambda endpoint: len(endpoint.queue))[:_CLAIMS]
        spaces = sorted(self._dirty)[:_SPACES]
        if not (self._results or self._released or spaces or wanted):
            return
        await self._work(spaces, wanted)

    async def _sweep(self) -> list[str]:
        """Look at everything: webhooks that others changed, logs that grew unheard, what others left. Gives whose deliveries are due."""
        async with self._database.read() as connection:
            await self._endpoints.refresh(connection, None)
            self._swept_at = self._clock.monotonic()
            if not len(self._endpoints):
                return []
            self._dirty.update(await outbox.list_behind(connection))
        if self._database.kind == "postgresql" and self._clock.monotonic() - self._took_over_at >= _TAKE_OVER_S:
            self._took_over_at = self._clock.monotonic()
            async with self._database.unit_of_work(apart=True) as uow:
                await outbox.take_over(uow, self._owner, everything=False)
        async with self._database.read() as connection:
            return await outbox.list_due(connection, self._clock.time())

    async def _work(self, spaces: Sequence[str], wanted: Sequence[Endpoint]) -> None:
        """The transaction of a turn, and then what it leased is sent."""
        results, released = tuple(self._results), tuple(self._released)
        self._dirty.difference_update(spaces)
        leased: list[tuple[Endpoint, Held]] = []
        try:
            async with self._database.unit_of_work(apart=True) as uow:
                if results:
                    await self._settle(uow, results)
                if released:
                    await outbox.release(uow, self._owner, released)
                if spaces:
                    leased += await self._make(uow, spaces)
                for endpoint in wanted:
                    leased += [(endpoint, held) for held in await self._claim(uow, endpoint)]
        except BaseException:
            self._dirty.update(spaces)
            raise
        del self._results[: len(results)], self._released[: len(released)]
        for endpoint, held in leased:
            endpoint.queue.append(held)
        for endpoint in {endpoint for endpoint, _ in leased}:
            self._send(endpoint)
        if self._dirty or self._hungry():
            self._woken.set()

    def _hungry(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._endpoints if endpoint.hungry and endpoint.room()]

    async def _settle(self, uow: UnitOfWork, results: Sequence[Result]) -> None:
        rows: list[SettledRow] = []
        failing: dict[Endpoint, float | None] = {}
        off: dict[Endpoint, str] = {}
        for endpoint, held, answer, at in results:
            rows.append(settled(held, answer, at, random.uniform))
            since = failing.get(endpoint, endpoint.failing_since)
            failing[endpoint] = None if answer.error is None else since if since is not None else at
            if answer.status == GONE:
                off[endpoint] = "gone"
            elif answer.error is not None and gives_up(since, at):
                off.setdefault(endpoint, "failing")
        await outbox.settle(uow, self._owner, rows)
        for endpoint, since in failing.items():
            if since != endpoint.failing_since:
                await outbox.mark_failing(uow, endpoint.webhook.id, since)
                endpoint.failing_since = since
        for endpoint, reason in off.items():
            await self._switch_off(uow, endpoint, reason)

    async def _switch_off(self, uow: UnitOfWork, endpoint: Endpoint, reason: str) -> None:
        webhook = endpoint.webhook
        if not await outbox.switch_off(uow, webhook.id, reason):
            return
        since = {} if endpoint.failing_since is None else {"failing_since": endpoint.failing_since}
        uow.emit(WEBHOOK_DISABLED, space_id=webhook.space_id, data=told(webhook, reason=reason, **since))
        uow.audit(deed(WEBHOOK_DISABLED, None, webhook, {"reason": reason}))
        _log.warning("webhook_disabled", webhook_id=public_id("webhook", webhook.id), reason=reason)
        endpoint.told = False
        self._let_go(endpoint)

    async def _make(self, uow: UnitOfWork, space_ids: Sequence[str]) -> list[tuple[Endpoint, Held]]:
        """Deliveries of what is new in the logs of these spaces; those that were leased at once."""
        places = await outbox.lock_cursors(uow, space_ids)
        # Behind the lock: who makes a webhook holds it too, so none is missed here that events are due to.
        await self._endpoints.refresh(uow.connection, [place.space_id for place in places])
        self._dirty.update(set(space_ids) - {place.space_id for place in places})
        made: list[tuple[Endpoint, NewRow]] = []
        left = _EVENTS
        for place in places:
            events = await outbox.list_between(uow, place.space_id, place.done, place.seq, left) if left else []
            whole = len(events) < left
            left -= len(events)
            made += new_rows(place, events, self._endpoints.of(place.space_id), self._owner, self._clock.time())
            if not whole:
                self._dirty.add(place.space_id)
            until = place.seq if whole else events[-1].seq if events else place.done
            if until != place.done:
                await outbox.move_cursor(uow, place.space_id, until)
        new = await outbox.insert_deliveries(uow, [row for _, row in made]) if made else set()
        return [(endpoint, outbox.held(row)) for endpoint, row in made if row[6] is not None and row[0] in new]

    async def _claim(self, uow: UnitOfWork, endpoint: Endpoint) -> list[Held]:
        room = endpoint.room()
        if room == 0:
            return []
        held = await outbox.claim(uow, self._owner, endpoint.webhook.id, room, ordered=endpoint.webhook.ordered)
        endpoint.hungry = len(held) == room
        return held

    # ---- attempts

    def _send(self, endpoint: Endpoint) -> None:
        """Have as many at work for it as may be and are needed."""
        while endpoint.in_flight < min(endpoint.most, endpoint.in_flight + len(endpoint.queue)) and not self._closing:
            if endpoint.in_flight and len(self._workers) >= _AT_ONCE:
                return
            endpoint.in_flight += 1
            worker = asyncio.get_running_loop().create_task(self._attempts(endpoint))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _attempts(self, endpoint: Endpoint) -> None:
        """One after the other, until nothing is leased or there are too many at work."""
        try:
            while endpoint.queue and endpoint.in_flight <= endpoint.most and not self._closing:
                held = endpoint.queue.popleft()
                wait_s = endpoint.wait_s(self._live_processes)
                if held.until - self._clock.time() - wait_s < TOTAL_S:
                    endpoint.queue.appendleft(held)
                    self._let_go(endpoint, wait_s)
                    return
                try:
                    if wait_s:
                        await asyncio.sleep(wait_s)
                    answer = await self.attempt(endpoint.receiver, endpoint.signer(self._clock.time()), held)
                except asyncio.CancelledError:
                    endpoint.queue.appendleft(held)
                    self._let_go(endpoint)
                    raise
                self._note(endpoint, held, answer)
        finally:
            endpoint.in_flight -= 1
            endpoint.hungry |= endpoint.webhook.ordered
            self._woken.set()

    async def attempt(self, receiver: Receiver, signer: Signer, held: Held) -> Answer:
        """One signed POST. Its time and its retry count are this attempt's own, its id the delivery's."""
        body = with_retry_count(held.body, held.attempts)
        signed = signer.headers(public_id("msg", held.id), int(self._clock.time()), body)
        return await receiver.post(b"%bX-Pluggedin-Event: %b\r\n" % (signed, held.event.encode()), body)

    def _note(self, endpoint: Endpoint, held: Held, answer: Answer) -> None:
        self._results.append((endpoint, held, answer, self._clock.time()))
        self._woken.set()
        if answer.error is None:
            closed, endpoint.failures = endpoint.failures >= OPENS_AFTER, 0
            if closed:
                self._send(endpoint)
            return
        endpoint.failures += 1
        if answer.status in _THROTTLES and answer.retry_after_s:
            pause_s = min(answer.retry_after_s, MOST_PAUSE_S)
            endpoint.paused_until = max(endpoint.paused_until, asyncio.get_running_loop().time() + pause_s)
        if endpoint.webhook.ordered or answer.status == GONE:
            self._let_go(endpoint)

    def _let_go(self, endpoint: Endpoint, after_s: float = 0.0) -> None:
        """What is leased for it and not begun is given back; in the order of the line where there is one."""
        now = self._clock.time()
        for held in endpoint.queue:
            self._released.append((held.id, store.LINE + held.seq if endpoint.webhook.ordered else now + after_s))
        endpoint.queue.clear()
