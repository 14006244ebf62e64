"""Values that a config computes: few and pure."""

import functools

from omegaconf import OmegaConf

from orthounlearn.errors import UsageError

_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")


@functools.cache
def precision(wanted: str) -> str:
    """Return Lightning's name of a precision; "auto" is bf16 autocast where it is fast.

    Raises:
        UsageError: The name is unknown.
    """
    if wanted not in _PRECISIONS:
        raise UsageError(f"Expected a precision out of {', '.join(_PRECISIONS)}, but got {wanted}.")
    if wanted != "auto":
        return wanted
    import torch  # here, so that composing a config that names a precision stays fast

    if torch.cuda.is_available():
        return (
            "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        )
    # Emulated bf16 is slower than float32; only these instructions compute it.
    capable = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if capable else "32-true"


def register() -> None:
    """Make `${precision:NAME}` known to OmegaConf."""
    OmegaConf.register_new_resolver("precision", precision, replace=True)
