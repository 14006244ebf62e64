"""Configurations outside the program: in a script, a notebook, a benchmark or a test."""

from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from orthounlearn.config import CONF_DIR, resolvers, schema
from orthounlearn.config.build import compose_job


def configuration(job: str, *overrides: str) -> dict[str, Any]:
    """Return the resolved configuration of `orthounlearn JOB OVERRIDE ...`.

    Not for use inside a Hydra application, which has one of its own.

    Args:
        job: "train", "prepare", "unlearn", "evaluate", "sweep", "tune" or "report".
        overrides: As on the command line.

    Raises:
        UsageError: A mandatory value is missing.
        hydra.errors.HydraException: A word is no override, or names what is not there.
    """
    schema.register()
    resolvers.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return compose_job(job, list(overrides))
