"""A user's own classes and functions: their source decides a result as much as options do."""

import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orthounlearn
from orthounlearn.config.build import locate
from orthounlearn.files import file_digest

_INSTALLED = ("site-packages", "dist-packages")
_NOT_OWN = (Path(orthounlearn.__file__).parent, Path(sysconfig.get_path("stdlib")))


def sources(node: Any) -> dict[str, str]:  # noqa: ANN401 - any node of a config
    """Return the SHA-256 of the source file of each target in a node that is the user's own.

    Own is what is neither installed nor part of this package: for installed packages versions are
    recorded. Only the file that defines the target counts. A change in what that file imports, a
    base class elsewhere too, is not seen: then delete the stored network, or choose a new name.
    """
    found = {}
    for target in sorted(set(_targets(node))):
        path = _source_file(target)
        if path is not None and _is_own(path):
            found[target] = file_digest(path)
    return found


def _targets(node: Any) -> Iterator[str]:  # noqa: ANN401 - any node of a config
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _source_file(target: str) -> Path | None:
    """Return the file that defines a target; None where there is none, as for what is built in."""
    found = inspect.unwrap(locate(target))
    if inspect.isclass(found) or inspect.isfunction(found):
        module = sys.modules.get(found.__module__)
    else:  # an instance, such as a `functools.partial`: the module that has it
        module = sys.modules.get(target.rpartition(".")[0])
    name = getattr(module, "__file__", None)
    path = Path(name) if name else None
    return path if path is not None and path.is_file() else None


def _is_own(path: Path) -> bool:
    path = path.resolve()
    return not set(_INSTALLED) & set(path.parts) and not any(
        path.is_relative_to(folder.resolve()) for folder in _NOT_OWN
    )
