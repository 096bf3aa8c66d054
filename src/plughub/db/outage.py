"""Tells the database's bad moments from our faults: an error that may be gone in a while is no 500."""

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from plughub.kit.errors import Unavailable

_RETRY_AFTER_S = 5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "53100"  # PostgreSQL's SQLSTATE
# Primary result codes of SQLite (https://www.sqlite.org/rescode.html); the others are a wrong statement or a wrong file.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
)


def find_outage(error: BaseException) -> Unavailable | None:
    """What to tell callers when `error` comes from a database that cannot be reached or has no room; None for any other error.

    Nothing of the driver's text is in it: that may hold statements, values and addresses.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return _unavailable("The disk has no room")
    if isinstance(error, PoolTimeout):
        return _unavailable("The database is busy")
    if not isinstance(error, DBAPIError):
        return None
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return _unavailable("The database has no room")
        return _unavailable("The database cannot be reached") if code in _PASSING else None
    if getattr(cause, "sqlstate", None) == _DISK_FULL:
        return _unavailable("The database has no room")
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        return _unavailable("The database cannot be reached")
    return None


def _unavailable(text: str) -> Unavailable:
    return Unavailable(text, headers={"retry-after": str(_RETRY_AFTER_S)})
