"""How far kernels are from orthogonal: pure functions of a convolution's weight.

W is the kernel as a matrix with a row for each output channel, (O, I·k·k). W Wᵀ = I asks for
orthonormal rows and needs O ≤ I·k·k; Wᵀ W = I asks for orthonormal columns. The Gram matrix of
the *smaller side* is the one that can be the identity.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def kernel_matrix(weight_OIHW: Tensor) -> Tensor:
    """Return W (O, I·k·k); its columns are in the order of memory, which no measure here minds.

    So a kernel in channels-last memory is viewed, not copied, forwards and backwards.
    """
    if weight_OIHW.ndim == 4 and weight_OIHW.is_contiguous(memory_format=torch.channels_last):
        return weight_OIHW.permute(0, 2, 3, 1).flatten(1)
    return weight_OIHW.flatten(1)


def gram(weight_OIHW: Tensor) -> Tensor:
    """Return the Gram matrix of the smaller side, (n, n) with n = min(O, I·k·k)."""
    matrix = kernel_matrix(weight_OIHW)
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def _off_identity(square: Tensor) -> Tensor:
    return square - torch.eye(len(square), dtype=square.dtype, device=square.device)


def gram_error(weight_OIHW: Tensor) -> Tensor:
    """Return ‖G − I‖_F² of the smaller side: 0 for orthonormal kernels.

    SO of Bansal et al., "Can We Gain More from Orthogonality Regularizations", arXiv 1810.09102,
    on the side that can reach 0.

    >>> gram_error(torch.eye(2, 3)[:, :, None, None] * 2).item()  # 2 · (2² − 1)²
    18.0
    """
    matrix = kernel_matrix(weight_OIHW)
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    error: Tensor = _RowGramError.apply(rows)
    return error


class _RowGramError(torch.autograd.Function):
    """‖A Aᵀ − I‖_F² with its gradient 4 (A Aᵀ − I) A in closed form.

    Autograd differentiates A and Aᵀ apart: three products of this size instead of two. On one core
    the term takes a third of a training step of a thin VGG, so it counts.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401 - torch's own type
        error = _off_identity(rows @ rows.T)
        ctx.save_for_backward(error, rows)
        return error.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:  # noqa: ANN401 - torch's own type
        error, rows = ctx.saved_tensors
        gradient: Tensor = (4 * upstream) * (error @ rows)
        return gradient


def double_gram_error(weight_OIHW: Tensor) -> Tensor:
    """Return ‖WᵀW − I‖_F² + ‖WWᵀ − I‖_F² (DSO, arXiv 1810.09102).

    The larger side cannot reach 0: its floor is the difference of the two side lengths.
    """
    matrix = kernel_matrix(weight_OIHW)
    sides = (matrix @ matrix.T, matrix.T @ matrix)
    return sum((_off_identity(side).square().sum() for side in sides), matrix.new_zeros(()))


def mutual_coherence(weight_OIHW: Tensor) -> Tensor:
    """Return ‖G − I‖_∞, the largest absolute entry (MC, arXiv 1810.09102)."""
    return _off_identity(gram(weight_OIHW)).abs().max()


def spectral_restricted_isometry(weight_OIHW: Tensor, start: Tensor | None = None) -> Tensor:
    """Return ‖M v‖² with v = M b / ‖M b‖, M = G − I: one power step towards σ(M)² (SRIP).

    Source: arXiv 1810.09102 and its released code, which squares the estimate.

    Args:
        weight_OIHW: The kernel.
        start: b (n,); None draws it uniformly from [0, 1), as released.
    """
    off = _off_identity(gram(weight_OIHW))
    if start is None:
        start = torch.rand(len(off), dtype=off.dtype, device=off.device)
    direction = F.normalize(off @ start, dim=0)
    return (off @ direction).square().sum()


def self_convolution_error(weight_OIHW: Tensor, *, stride: int = 1) -> Tensor:
    """Return ‖Conv(K, K; padding P, stride S) − I_r0‖_F² with P = ⌊(k−1)/S⌋·S on each side.

    Zero if the rows of the convolution's own matrix are orthonormal: shifted copies of a kernel
    count as well. I_r0 is the identity at shift zero. Source: Wang et al., "Orthogonal
    Convolutional Neural Networks", CVPR 2020, arXiv 1911.12207, equation 10. P is the paper's;
    with padding 1 and stride 2 shift zero is never sampled, and the target lands on shift one.

    Args:
        weight_OIHW: The kernel.
        stride: S of the convolution.
    """
    padding = tuple((size - 1) // stride * stride for size in weight_OIHW.shape[-2:])
    overlaps = F.conv2d(weight_OIHW, weight_OIHW, padding=padding, stride=stride)
    target = torch.zeros_like(overlaps)
    row, column = (p // stride for p in padding)
    target[:, :, row, column] = torch.eye(
        len(weight_OIHW), dtype=overlaps.dtype, device=overlaps.device
    )
    return (overlaps - target).square().sum()


def mean_absolute_cosine(weight_OIHW: Tensor) -> Tensor:
    """Return the mean |cosine| between different kernels, in [0, 1]; 0 for a single kernel."""
    rows = F.normalize(kernel_matrix(weight_OIHW), dim=1)
    count = len(rows)
    if count < 2:
        return rows.new_zeros(())
    cosines = (rows @ rows.T).abs()
    return (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
