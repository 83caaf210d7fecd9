"""A bounded memory: tables that strangers can fill must forget."""

from __future__ import annotations

from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class Lru(Generic[_K, _V]):
    """A mapping that forgets what was put longest ago. `get` and `has` change nothing, so any thread may call them."""

    __slots__ = ("_entries", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[_K, _V] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: _K) -> _V | None:
        return self._entries.get(key)

    def has(self, key: _K) -> bool:
        return key in self._entries

    def put(self, key: _K, value: _V) -> None:
        self._entries.pop(key, None)
        self._entries[key] = value
        if len(self._entries) > self._size:
            del self._entries[next(iter(self._entries))]

    def pop(self, key: _K) -> _V | None:
        return self._entries.pop(key, None)
