"""What lies before the place that is edited: it is run once, since no edit changes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orthounlearn.methods.base import Context
from orthounlearn.methods.layers import evaluating

_MOST_BYTES = 4 << 30  # of memory for what the place reads; beyond it images are run anew
_TRIED = 8  # images at either end that a replay is tried on


@dataclass(frozen=True)
class Inputs:
    """What the place reads of each image: the output of the block before it, or the image.

    A network cannot be started in its middle, whoever wrote it. So it is started with one image
    that means nothing, and the output of the block is replaced by what it was for the images that
    are asked for: of everything before, one image is left to compute.

    Attributes:
        tensors_N: float16 images (N, C, H, W), or the outputs of `block` for them.
        block: Name of the module; None: they are images.
    """

    tensors_N: Tensor
    block: str | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.tensors_N)

    def forward(self, net: nn.Module, context: Context, chosen_B: Tensor) -> Tensor:
        """Return the logits (B, K), as float32.

        Args:
            net: Equal to the original up to the block.
            context: For its precision.
            chosen_B: Numbers of the images.
        """
        given = self.tensors_N[chosen_B.to(self.tensors_N.device)]
        if self.block is None:
            with context.autocast():
                return net(given.float()).float()  # type: ignore[no-any-return]
        handle = net.get_submodule(self.block).register_forward_hook(lambda *_: given)
        try:
            with context.autocast():
                return net(context.example[:1]).float()  # type: ignore[no-any-return]
        finally:
            handle.remove()


@contextmanager
def recording(net: nn.Module, block: str | None) -> Iterator[list[Tensor]]:
    """Yield a list that takes the output of a block in every forward pass; none without a block."""
    outputs: list[Tensor] = []
    if block is None:
        yield outputs
        return
    handle = net.get_submodule(block).register_forward_hook(
        lambda _, __, output: outputs.append(output)
    )
    try:
        yield outputs
    finally:
        handle.remove()


@torch.no_grad()
def can_replay(net: nn.Module, context: Context, block: str | None, images: Inputs) -> bool:
    """Return whether replaying a block's outputs gives the same logits, in bounded memory.

    It does not where what comes after the block asks for something that came before it, such as
    the number of images.
    """
    if block is None or len(images) == 0:
        return False
    count = min(_TRIED, len(images))
    ends = torch.cat([torch.arange(count), torch.arange(len(images) - count, len(images))])
    with evaluating(net):
        with recording(net, block) as outputs:
            direct = images.forward(net, context, ends)
        (output,) = outputs
        if output[0].nbytes * len(images) > _MOST_BYTES:
            return False
        try:
            replayed = Inputs(output, block).forward(net, context, torch.arange(len(ends)))
        except (RuntimeError, ValueError, IndexError):  # whatever shapes do not fit
            return False
    return replayed.shape == direct.shape and torch.allclose(replayed, direct, rtol=1e-2, atol=1e-2)
