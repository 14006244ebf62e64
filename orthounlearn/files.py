"""Files that are whole or absent: atomic writes, JSON and content hashes."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orthounlearn.errors import UsageError

_ELSEWHERE = (
    "choose another folder, with paths.runs=FOLDER for results or paths.cache=FOLDER for images"
)
_HINTS = {
    errno.ENOSPC: f"no space left on that disk: free some, or {_ELSEWHERE}",
    errno.EDQUOT: f"the disk quota is used up: free some space, or {_ELSEWHERE}",
    errno.EACCES: f"no permission to write there: change its owner, or {_ELSEWHERE}",
    errno.EPERM: f"no permission to write there: change its owner, or {_ELSEWHERE}",
    errno.EROFS: f"that file system is read-only: {_ELSEWHERE}",
    errno.EEXIST: f"part of that path is a file, not a folder: {_ELSEWHERE}",
    errno.ENOTDIR: f"part of that path is a file, not a folder: {_ELSEWHERE}",
}
_PROBE = bytes(1 << 16)  # more than the rest of a block that a full disk may have left in a file


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
    with explained(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            with explained(path):  # while the temporary file still takes the space
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
    with explained(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # a file system without folders of one's own
            raise UsageError(f"Cannot make the folder {path}: {_ELSEWHERE}.") from error


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of an error in the block why `path` cannot be written, if that is the reason.

    Libraries that write files (PyTorch, NumPy) say in their own ways that a write failed, and not
    why. So the system is asked once more, with a file beside `path`.

    Raises:
        UsageError: There is no space or no permission.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        code = getattr(error, "errno", None) or _told_number(error) or _write_error(path.parent)
        if code in _HINTS:
            raise UsageError(f"Cannot write {path}: {_HINTS[code]}.") from error
        raise


def _told_number(error: Exception) -> int | None:
    """Return the error number in a message of Rust's, such as safetensors'."""
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def _write_error(folder: Path) -> int | None:
    """Return the number of the error that writing to a folder meets; None if it works."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
    except OSError as error:
        return error.errno
    return None


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
