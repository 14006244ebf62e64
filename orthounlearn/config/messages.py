"""What the command line says of input that Hydra or OmegaConf refuses."""

import re
from collections.abc import Mapping

from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from orthounlearn.config.checks import close_keys
from orthounlearn.errors import UsageError

_SLIPS = {
    "Unexpected type for root": (
        "Expected options of choices that are made, but one of these is below an option that is "
        "null here. Make the choice as well, as in metrics=standard metrics.relearn.steps=9."
    ),
    "Config group override must be": (
        "Expected GROUP=NAME of a choice, but one of these is null, a number or the like. Leave it "
        "out, or take `none` where there is one."
    ),
}
"""How the errors begin that Hydra and OmegaConf have no class for -> what the user can do."""


_NO_CHOICE = re.compile(r"Could not override '([^']*)'\.\s*No match in the defaults list")


def is_slip(error: BaseException) -> bool:
    """Tell whether an error is the user's, though it is of a class that our own have as well."""
    return str(error).startswith(tuple(_SLIPS))


def explain(error: BaseException) -> str:
    """Return the message of the first UsageError in a chain, else the error's own.

    Hydra answers a typing error in a key with how to add that key; this says which there are. Of a
    value of a wrong type it says that it is wrong; the reason is in the error below.
    """
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, UsageError):
            return str(cause)
    for start, advice in _SLIPS.items():
        if str(error).startswith(start):
            return advice
    if unknown := _NO_CHOICE.search(str(error)):
        return (
            f"Expected choices that this job has, but it has none called {unknown[1]}. "
            "`orthounlearn JOB --help` shows a job's options, and `orthounlearn --help` the jobs."
        )
    if "Could not override" in str(error):
        for cause in causes:
            if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
                return _unknown_key(cause)
    reasons = [text.splitlines()[0] for text in map(str, causes[1:]) if text]
    return ": ".join(dict.fromkeys([str(error), *reasons]))


def _unknown_key(error: ConfigAttributeError | ConfigKeyError) -> str:
    given, parent = str(error.full_key), error.parent_node
    if not isinstance(parent, Mapping):
        return str(error)
    key = str(error.key)
    if not parent:
        above = given.removesuffix(key).rstrip(".")
        return f"Expected +{given}=VALUE, which adds to the empty {above}, but got {given}."
    valid = close_keys(key, [str(name) for name in parent], given.removesuffix(key))
    return f"Expected {valid}, but got {given}. `--cfg job` shows all options."
