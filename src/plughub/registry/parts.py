"""The registry of a running hub, handed to the doors as one value."""

from dataclasses import dataclass

from plughub.db.engine import Database
from plughub.kit.crypto import Sealer
from plughub.registry.activity import Trends
from plughub.registry.installing import Installer
from plughub.registry.keeping import Keeper
from plughub.registry.packages import Packages
from plughub.settings import Settings


@dataclass(frozen=True, slots=True)
class Registry:
    """Its parts that hold something; the application starts and stops them."""

    packages: Packages
    installer: Installer
    keeper: Keeper
    trends: Trends

    @classmethod
    def of(cls, database: Database, settings: Settings, sealer: Sealer) -> "Registry":
        """Built without touching disk or database."""
        packages = Packages(settings)
        return cls(packages, Installer(database, sealer, packages), Keeper(database, packages), Trends(database))
