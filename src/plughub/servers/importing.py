"""Rules of an import: all of a file's servers or none, and what happens to names that exist already."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.errors import Conflict
from plughub.servers import store
from plughub.servers.client_files import ClientFile
from plughub.servers.schemas import Server
from plughub.servers.service import create_server, require_whole_grant

_ROOM = 90  # of the 100 characters of a name
OnConflict = Literal["skip", "rename", "error"]


@dataclass(slots=True)
class Imported:
    """What came of a file: new servers, names left alone, and new names by those of the file."""

    servers: list[Server] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


async def import_servers(uow: UnitOfWork, caller: Caller, file: ClientFile, on_conflict: OnConflict, sealer: Sealer) -> Imported:
    """Register the servers of a file. A name exists when a server has it as its name or its slug, in any case of letters.

    Raises Conflict for `on_conflict` error, Forbidden as `create_server` does.
    """
    require_whole_grant(caller)
    await store.lock_space(uow, caller.space_id)
    taken = {word.casefold() for word in await store.list_names(uow.connection, caller.space_id)}
    existing = [entry.name for entry in file.entries if entry.name.casefold() in taken]
    if existing and on_conflict == "error":
        raise Conflict(f"Servers of these names exist: {', '.join(existing)}", names=existing)
    done = Imported()
    for entry in file.entries:
        create = entry.create
        if entry.name.casefold() in taken:
            if on_conflict == "skip":
                done.skipped.append(entry.name)
                continue
            name = _free_name(entry.name, taken)
            create = create.model_copy(update={"name": name})
            done.renamed[entry.name] = name
            taken.add(name.casefold())
        done.servers.append(await create_server(uow, caller, create, sealer))
    return done


def _free_name(name: str, taken: Collection[str]) -> str:
    number, name = 2, name[:_ROOM]
    while f"{name}-{number}".casefold() in taken:
        number += 1
    return f"{name}-{number}"
