"""Boundary Expanding: the forgotten images are sent to a new class, which is then removed."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.methods.base import Batch, Context, LossMethod
from orthounlearn.methods.head import find_classifier


class BoundaryExpand(LossMethod):
    """Add an output K, minimise CE(x, K) on D_f, then drop that output again.

    The new row is drawn as its authors do (Xavier normal, bias 0). The unlearned network has the K
    outputs of the original, with the trained rows.

    Source: Chen et al., "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the
    Decision Boundary", CVPR 2023, arXiv 2303.11570; TY-LEE-KR@19f9f23 (SGD 1e-5, momentum 0.9,
    10 epochs, batch 64). The port in SalUn's repository never drops the output.

    Deviations: BatchNorm statistics are frozen, since forget-only batches in train mode destroy
    them.
    """

    uses = frozenset({"forget_train"})

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Widen the classifier by one output."""
        self._classifier = find_classifier(net, context.example)
        weight, bias = self._classifier.weight, self._classifier.bias
        self._extra = self._classifier.out_features
        std = math.sqrt(2 / (self._classifier.in_features + self._extra + 1))
        row = torch.randn_like(weight[:1]) * std
        self._set_rows(torch.cat([weight, row]), None if bias is None else F.pad(bias, (0, 1)))
        return net

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy of the forgotten images with the new class."""
        images, labels = batch["forget_train"]
        return F.cross_entropy(net(images), torch.full_like(labels, self._extra))

    def finish(self, net: nn.Module) -> nn.Module:
        """Drop the extra output."""
        bias = self._classifier.bias
        self._set_rows(
            self._classifier.weight[: self._extra],
            None if bias is None else bias[: self._extra],
        )
        return net

    def _set_rows(self, weight: Tensor, bias: Tensor | None) -> None:
        self._classifier.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            self._classifier.bias = nn.Parameter(bias.detach().clone())
        self._classifier.out_features = len(weight)
