"""Which form the limits have: counted in this process, or in Redis for all processes."""

from collections.abc import Callable

from plughub.cluster.limits import Alarm, InProcessLimits, Limits
from plughub.kit.clock import Clock
from plughub.settings import Settings


def make_limits(settings: Settings, clock: Clock, processes: Callable[[], int], alarm: Alarm) -> Limits:
    """The form that the settings choose. `processes`: how many share the limits; `alarm` hears how much an organisation has used."""
    if not settings.redis_url:
        return InProcessLimits(clock, settings.cache_entries, alarm)
    from plughub.cluster.redis_limits import RedisLimits

    return RedisLimits(settings.redis_url, clock, settings.cache_entries, processes=processes, alarm=alarm)
