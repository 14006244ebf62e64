"""Configuration: where `conf/` is, what its nodes may hold, and the objects that they make."""

from pathlib import Path

_PACKAGED = Path(__file__).parents[1] / "conf"  # in a wheel
CONF_DIR = str(_PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf")
