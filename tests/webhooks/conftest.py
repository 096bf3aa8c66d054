"""A deliverer on each database."""

from collections.abc import AsyncIterator

import pytest

from plughub.db.engine import Database
from plughub.identity.service import Organization
from plughub.kit.crypto import Sealer
from tests.conftest import FakeClock
from tests.webhooks.delivering import Delivering


@pytest.fixture
async def delivering(database: Database, operator: Organization, clock: FakeClock, sealer: Sealer) -> AsyncIterator[Delivering]:
    made = Delivering(database, operator, clock, sealer)
    yield made
    await made.deliverer.aclose()
