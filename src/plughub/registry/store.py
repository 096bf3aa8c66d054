"""SQL of the registry's entries: what is listed, found and kept."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.registry_tables import registry_document, registry_entry, registry_figures, registry_install, registry_source, registry_star
from plughub.db.unit_of_work import UnitOfWork
from plughub.registry.schemas import CATALOGUE, EVERYBODY, LOCAL, Found, Search

entry, figures = registry_entry.c, registry_figures.c
_LISTED = [registry_entry.c[name] for name in Found.__slots__ if name not in ("installs", "stars")]
_PACKAGES = {"docker": "oci"}
# A search looks at what is live; a name that was withdrawn is found by nobody.
_LIVE = (entry.is_latest, entry.status != "deleted")


def _listing() -> Select[Any]:
    counted = [func.coalesce(figures[name], 0).label(name) for name in ("installs", "stars")]
    joined = (figures.scope == entry.scope) & (figures.name == entry.name)
    return select(*_LISTED, *counted).select_from(registry_entry).outerjoin(registry_figures, joined)


async def _rows(connection: AsyncConnection, query: Select[Any]) -> Sequence[RowMapping]:
    found: Sequence[RowMapping] = (await connection.execute(query)).mappings().all()
    return found


def _whole() -> Select[Any]:
    """A version with its document."""
    joined = registry_document.c.entry_id == entry.id
    return select(registry_entry, registry_document.c.document).join(registry_document, joined)


def found_of(row: RowMapping) -> Found:
    """A row of a list."""
    values = {name: row[name] for name in Found.__slots__}
    return Found(**{**values, "transports": tuple(row["transports"].split())})


def contains(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """That the text is in the column as it stands: `%` and `_` mean themselves."""
    return column.contains(text.lower(), autoescape=True)


async def search(
    connection: AsyncConnection, scopes: Collection[str], wanted: Search, limit: int, offset: int
) -> tuple[Sequence[RowMapping], int]:
    """A page of what is looked for, and how many there are."""
    conditions = [entry.scope.in_(scopes), *_LIVE, *(contains(entry.words, word) for word in wanted.words)]
    if wanted.source != "all":
        conditions.append((entry.source == LOCAL) if wanted.source == "community" else (entry.source != LOCAL))
    if wanted.package is not None:
        conditions.append(entry.package_type == _PACKAGES.get(wanted.package, wanted.package))
    if wanted.repository is not None:
        conditions.append(contains(func.lower(entry.repository), wanted.repository))
    total = (await connection.execute(select(func.count()).select_from(registry_entry).where(*conditions))).scalar_one()
    query = _listing().where(*conditions).order_by(*_order(wanted)).limit(limit).offset(offset)
    return (await connection.execute(query)).mappings().all(), total


def _order(wanted: Search) -> list[ColumnElement[Any]]:
    popular: list[ColumnElement[Any]] = [func.coalesce(figures.installs, 0).desc(), func.coalesce(figures.stars, 0).desc()]
    if wanted.sort == "recent":
        return [entry.updated_at.desc(), entry.name, entry.scope]
    if wanted.sort == "relevance" and wanted.words:
        first = wanted.words[0].lower()
        near = case(
            (or_(entry.short_name == first, func.lower(entry.title) == first), 0),
            (entry.short_name.startswith(first, autoescape=True), 1),
            (contains(entry.short_name, first), 2),
            else_=3,
        )
        popular = [near, *popular]
    return [*popular, entry.name, entry.scope]


async def find_named(connection: AsyncConnection, scopes: Collection[str], name: str) -> Sequence[RowMapping]:
    """The servers of that full name, the organisation's own first; else those of that last part, up to 20; with their documents."""
    query = _listing().join(registry_document, registry_document.c.entry_id == entry.id)
    query = query.add_columns(registry_document.c.document).where(entry.scope.in_(scopes), *_LIVE)
    named = await _rows(connection, query.where(entry.name == name).order_by(entry.scope.desc()).limit(1))
    return named or await _rows(connection, query.where(entry.short_name == name.lower()).order_by(entry.name).limit(20))


async def list_latest(connection: AsyncConnection, scopes: Collection[str], names: Collection[str]) -> Sequence[RowMapping]:
    """The latest versions of these names."""
    query = select(*_LISTED).where(entry.scope.in_(scopes), entry.name.in_(names), *_LIVE)
    return (await connection.execute(query)).mappings().all()


async def find_entry(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> RowMapping | None:
    """One version."""
    return (await connection.execute(select(registry_entry).where(*conditions))).mappings().first()


async def list_versions(connection: AsyncConnection, scope: str, name: str) -> Sequence[RowMapping]:
    """Every version of a server with its document, the newest first."""
    query = _whole().where(entry.scope == scope, entry.name == name)
    return await _rows(connection, query.order_by(entry.is_latest.desc(), entry.published_at.desc(), entry.id.desc()))


async def list_public(
    connection: AsyncConnection, conditions: Sequence[ColumnElement[bool]], after: tuple[str, str] | None, limit: int
) -> Sequence[RowMapping]:
    """What everybody sees and other registries can have, by name and version, after a place in that order."""
    query = _whole().where(entry.scope == EVERYBODY, entry.name.contains("/"), *conditions)
    if after is not None:
        query = query.where(or_(entry.name > after[0], (entry.name == after[0]) & (entry.version > after[1])))
    return await _rows(connection, query.order_by(entry.name, entry.version).limit(limit))


async def list_submissions(connection: AsyncConnection, limit: int, offset: int) -> tuple[Sequence[RowMapping], int]:
    """What organisations have submitted, the newest first."""
    local = entry.source == LOCAL
    total = (await connection.execute(select(func.count()).select_from(registry_entry).where(local))).scalar_one()
    query = select(registry_entry).where(local).order_by(entry.published_at.desc(), entry.id.desc()).limit(limit).offset(offset)
    return (await connection.execute(query)).mappings().all(), total


async def count_live(connection: AsyncConnection, scopes: Collection[str]) -> int:
    """How many servers there are to find."""
    query = select(func.count()).select_from(registry_entry).where(entry.scope.in_(scopes), *_LIVE)
    found: int = (await connection.execute(query)).scalar_one()
    return found


async def count_of(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> int:
    """How many versions fit."""
    found: int = (await connection.execute(select(func.count()).select_from(registry_entry).where(*conditions))).scalar_one()
    return found


async def known_versions(connection: AsyncConnection, scope: str, names: Collection[str]) -> Sequence[RowMapping]:
    """The versions of these names, with the documents."""
    query = _whole().where(entry.scope == scope, entry.name.in_(names))
    return await _rows(connection, query.order_by(entry.published_at, entry.id))


async def insert_entry(uow: UnitOfWork, values: Mapping[str, Any]) -> None:
    """One version with its `document`."""
    await uow.execute(insert(registry_entry).values(**{name: value for name, value in values.items() if name != "document"}))
    await uow.execute(insert(registry_document).values(entry_id=values["id"], document=values["document"]))


async def replace_entry(uow: UnitOfWork, entry_id: str, values: Mapping[str, Any]) -> None:
    """Change one version with its `document`."""
    changes = {name: value for name, value in values.items() if name != "document"}
    await uow.execute(update(registry_entry).where(entry.id == entry_id).values(**changes))
    own = registry_document.c.entry_id == entry_id
    await uow.execute(update(registry_document).where(own).values(document=values["document"]))


async def update_entries(uow: UnitOfWork, values: Mapping[str, Any], *conditions: ColumnElement[bool]) -> None:
    """Change versions."""
    await uow.execute(update(registry_entry).where(*conditions).values(**values))


async def delete_entries(uow: UnitOfWork, *conditions: ColumnElement[bool]) -> None:
    """Remove versions."""
    await uow.execute(delete(registry_entry).where(*conditions))


async def move_figures(uow: UnitOfWork, name: str, before: str, after: str) -> None:
    """What is counted of a server, its stars and installations go along to another scope."""
    for table in (registry_figures, registry_star, registry_install):
        await uow.execute(update(table).where(table.c.scope == before, table.c.name == name).values(scope=after))


async def find_source(connection: AsyncConnection, url: str) -> RowMapping | None:
    """How far a registry was read."""
    return (await connection.execute(select(registry_source).where(registry_source.c.url == url))).mappings().first()


async def list_sources(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Every registry that was read, with `entries`: how many versions it gave."""
    entries = select(func.count()).select_from(registry_entry).where(entry.source == registry_source.c.url).scalar_subquery()
    query = select(registry_source, entries.label("entries")).where(registry_source.c.url != CATALOGUE)
    return await _rows(connection, query.order_by(registry_source.c.url))


async def keep_source(uow: UnitOfWork, url: str, values: Mapping[str, Any]) -> None:
    """How far a registry was read from now on."""
    done = await uow.execute(update(registry_source).where(registry_source.c.url == url).values(**values))
    if done.rowcount == 0:
        await uow.execute(insert(registry_source).values(**{"url": url, "refused": 0, "notes": [], **values}))


async def forget_sources(uow: UnitOfWork, kept: Iterable[str]) -> None:
    """Remove what came from registries that are no longer asked."""
    known = [CATALOGUE, LOCAL, *kept]
    await uow.execute(delete(registry_entry).where(entry.source.not_in(known)))
    await uow.execute(delete(registry_source).where(registry_source.c.url.not_in(known)))
