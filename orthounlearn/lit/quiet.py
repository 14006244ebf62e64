"""Less talk: what Lightning says to people who run one notebook cell is noise in a sweep."""

import logging
import warnings


def quieten() -> None:
    """Silence Lightning's advice and one known deprecation, for the whole process."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    # lightning 2.6 checks isinstance(treespec, LeafSpec), which torch 2.14 deprecates
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
