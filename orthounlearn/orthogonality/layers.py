"""Which convolutions a penalty covers."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from orthounlearn.errors import UsageError


def select_convolutions(net: nn.Module, layers: str | Sequence[str]) -> dict[str, nn.Conv2d]:
    """Return the chosen convolutions by name.

    Args:
        net: Any network.
        layers: "spatial": all with kernels larger than 1×1 but the first (its few input channels
            make orthogonality infeasible, and OCNN reports instability there); "all" of any size;
            or names, with `*` and `?`. Grouped and depthwise convolutions are left out of the
            first two: their rows do not share inputs, so they are orthogonal already.

    Raises:
        UsageError: Nothing matches; lists what there is.
    """
    convolutions = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    dense = {name: conv for name, conv in convolutions.items() if conv.groups == 1}
    if layers == "all":
        chosen = dense
    elif layers == "spatial":
        first = next(iter(convolutions), None)
        chosen = {n: c for n, c in dense.items() if n != first and max(c.kernel_size) > 1}
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        chosen = {n: c for n, c in convolutions.items() if any(fnmatchcase(n, p) for p in patterns)}
    if not chosen:
        raise UsageError(
            f"Expected regularizer.penalty.layers to be spatial, all or names, but {layers!r} "
            f"matches none of: {', '.join(convolutions) or 'no convolution at all'}."
        )
    return chosen
