"""Print which methods `make tune` is to tune.

python tools/tunable.py all                  those of conf/methods/all.yaml that declare a search
python tools/tunable.py soft_prune,salun     these two, as they are
"""

import sys
from collections.abc import Sequence

from methods_page import METHODS, read_config


def tunable(given: str) -> list[str]:
    """Return the names that are meant: those given, or those of a list that have a search."""
    listed = METHODS.parent / "methods" / f"{given}.yaml"
    if not listed.exists():
        return given.split(",") if given else []
    names = read_config(listed)["methods"]
    return [name for name in names if read_config(METHODS / f"{name}.yaml").get("search")]


def main(arguments: Sequence[str]) -> int:
    """Print the names, or say what to give."""
    names = tunable("".join(arguments))
    if not names:
        sys.stderr.write(
            "error: expected METHODS=NAME,NAME or METHODS=all, a list in conf/methods, but got "
            "nothing. Each is a file in conf/method that has a `search`.\n"
        )
        return 2
    sys.stdout.write(" ".join(names) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
