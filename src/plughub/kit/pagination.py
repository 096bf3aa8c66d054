"""One page of a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items` from `offset` on, at most `limit`, of `total`."""

    items: Sequence[T]
    total: int
    limit: int
    offset: int
