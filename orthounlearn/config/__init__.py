"""Configuration: where `conf/` is, what its nodes may hold, and the objects that they make."""

from pathlib import Path

_PACKAGED = Path(__file__).parents[1] / "conf"  # in a wheel
INSTALLED = _PACKAGED.is_dir()
CONF_DIR = str(_PACKAGED if INSTALLED else Path(__file__).parents[2] / "conf")
