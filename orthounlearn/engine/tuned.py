"""The note that a search leaves beside the values it found, and whether a method has them still."""

from collections.abc import Iterator, Mapping
from typing import Any

from orthounlearn.config.build import settings


def recorded(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method by dotted name, as a note of its search holds them.

    Those that are null, and so leave something to others or do nothing, are left out.

    >>> recorded({"name": "m", "gate": {}, "rate": 0.1, "to": None, "optimizer": {"lr": 1}})
    {'rate': 0.1, 'optimizer.lr': 1}
    """
    options = settings(method)
    for of_method in ("name", "_target_"):
        options.pop(of_method, None)
    return dict(_flat(options, ""))


def trials_of(method: Mapping[str, Any]) -> int | None:
    """Return how many trials chose the values that a method has; 0: none, they are its defaults.

    None where no search of this method chose them and they are no defaults of its own either:
    there is nothing to choose, or they are another method's, or set by hand over those found. An
    option that came after the search does not count: there was none other then.
    """
    note = method.get("tuned")
    if not note:
        return 0 if method.get("search") else None
    if note.get("method") != method["name"]:
        return None
    now = recorded(method)
    if any(now.get(option, value) != value for option, value in note["settings"].items()):
        return None
    return int(note["trials"])


def _flat(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None and key != "_partial_":
            yield f"{prefix}{key}", value
