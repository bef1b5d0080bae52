"""One registry pattern for backbones, methods, datasets and metric presets: a name, a card, a factory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .errors import SempartError


@dataclass(frozen=True)
class Card:
    """What a reader must know before using an entry; shown by ``sempart list`` and in the book.

    Parameters
    ----------
    name : str
        The name by which the entry is asked for.
    what : str
        One sentence: what it is.
    source : str
        Paper, section or equation; repository and commit; package and version.
    licence : str
        Licence of what is fetched, or "-" where nothing is.
    labels : str
        Human labels used anywhere in its making ("none", "ImageNet classes", ...).
    cost : str
        Rough cost: time per photograph, download size, GPU hours.
    extra : dict
        Facts of one kind of entry only (patch size, sha256, default tau, ...).
    """

    name: str
    what: str
    source: str = ""
    licence: str = "-"
    labels: str = "none"
    cost: str = ""
    extra: dict = field(default_factory=dict)


class Registry(Mapping):
    """Mapping from name to factory, with a card for each.

    >>> methods = Registry("method")
    >>> @methods.register(Card("half", "left half of the picture"))
    ... def half(x): ...
    >>> list(methods)
    ['half']
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, tuple[Card, Callable]] = {}

    def register(self, card: Card, factory: Callable | None = None) -> Callable:
        """Add an entry; usable as a decorator. A name may be used once."""
        if factory is None:
            return lambda f: self.register(card, f)
        if card.name in self._entries:
            raise SempartError(f"{self.kind} {card.name!r} is registered already; choose another name")
        self._entries[card.name] = (card, factory)
        return factory

    def _entry(self, name: str) -> tuple[Card, Callable]:
        if name not in self._entries:
            raise SempartError(f"unknown {self.kind} {name!r}; choose one of: {', '.join(self._entries)}")
        return self._entries[name]

    def __getitem__(self, name: str) -> Callable:
        return self._entry(name)[1]

    def get(self, name: str, default: Callable | None = None) -> Callable | None:
        """The factory of ``name``, or ``default`` where there is none."""
        return self._entries[name][1] if name in self._entries else default

    def card(self, name: str) -> Card:
        """The card of ``name``; SempartError names the known entries."""
        return self._entry(name)[0]

    def cards(self) -> list[Card]:
        """All cards in the order of registration."""
        return [c for c, _ in self._entries.values()]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
