"""The list of a sweep's runs beside its table, so that a page can be made of exactly these."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orthounlearn.errors import UsageError
from orthounlearn.files import read_json, write_json

_NAME = "runs.json"


@dataclass(frozen=True)
class Listing:
    """What a table was made of.

    Attributes:
        folders: Run directories, relative to the folder of all results.
        columns: That were chosen; None: the usual ones.
        command: What made the runs.
    """

    folders: list[str]
    columns: list[str] | None
    command: str | None


def write_listing(
    root: Path,
    name: str,
    folders: Sequence[Path],
    *,
    columns: Sequence[str] | None,
    command: str | None,
) -> None:
    """Write `ROOT/tables/NAME/runs.json`.

    Args:
        root: Folder of all results.
        name: Of the table.
        folders: Of its runs.
        columns: That were chosen; None: the usual ones.
        command: What made the runs.
    """
    paths = [
        (folder.relative_to(root) if folder.is_relative_to(root) else folder).as_posix()
        for folder in (folder.absolute() for folder in folders)
    ]
    listing = Listing(paths, None if columns is None else list(columns), command)
    write_json(_path(root, name), asdict(listing))


def read_listing(root: Path, name: str) -> Listing:
    """Read what `write_listing` wrote.

    Raises:
        UsageError: No sweep has made a table of that name, or the list is damaged.
    """
    path = _path(root, name)
    if not path.exists():
        tables = sorted(found.parent.name for found in root.glob(f"tables/*/{_NAME}"))
        raise UsageError(
            f"Expected table={name} to be a table that a sweep has made, but there is no {path}. "
            f"Valid: {', '.join(tables) or 'none yet'}. Without table= all runs are read."
        )
    try:
        return Listing(**read_json(path))
    except TypeError as error:
        raise UsageError(
            f"Expected {path} to be the list of a sweep, but it is damaged ({error}). Give the "
            "command of the sweep again; it runs nothing twice."
        ) from error


def refuse_a_sweeps(root: Path, name: str) -> None:
    """Refuse a name under which a table of other runs would replace that of a sweep.

    Raises:
        UsageError: A sweep has made a table of that name.
    """
    if _path(root, name).exists():
        raise UsageError(
            f"Expected a name of your own, but name={name} is the table of a sweep, and these runs "
            f"are not its runs. `orthounlearn report table={name}` makes its page of its runs "
            "alone; for a table of all runs choose another name."
        )


def _path(root: Path, name: str) -> Path:
    return root / "tables" / name / _NAME
