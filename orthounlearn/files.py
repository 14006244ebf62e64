"""Files that are whole or absent: atomic writes, JSON and content hashes."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orthounlearn.errors import UsageError

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder",
    errno.EACCES: "no permission to write there: choose another folder or change its owner",
    errno.EPERM: "no permission to write there: choose another folder or change its owner",
    errno.EROFS: "that file system is read-only: choose another folder",
    errno.EEXIST: "part of that path is a file, not a folder: choose another folder",
    errno.ENOTDIR: "part of that path is a file, not a folder: choose another folder",
}


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    An interrupted or failed block leaves `path` as it was and removes the temporary file.

    Args:
        path: The file to create or to replace. Missing parent folders are made.

    Yields:
        The temporary path to write to. It has the suffix of `path`.

    Raises:
        UsageError: There is no space or no permission.
    """
    make_folder(path.parent)
    with _explained(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)  # mkstemp's 0600 would hide results from colleagues
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if they are missing.

    Raises:
        UsageError: There is no space or no permission, or a file is in the way.
    """
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _HINTS:
            raise UsageError(f"Cannot write {path}: {_HINTS[error.errno]}.") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - anything JSON can hold
    """Write `value` to `path` atomically, as JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - anything JSON can hold
    """Read a JSON file.

    Raises:
        UsageError: The file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"Expected a JSON file at {path}, but there is none.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Expected JSON in {path}, but it is damaged ({error}). "
            "Delete it and run the job again."
        ) from error


def digest(value: Any) -> str:  # noqa: ANN401 - anything JSON can hold
    """Return the SHA-256 of a JSON-like value, the same on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
