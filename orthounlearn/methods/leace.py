"""Closed-form concept erasure: no linear classifier tells the class from the others any more."""

import torch
from torch import Tensor, nn

from orthounlearn.methods.base import Context, SplitName, UnlearningMethod
from orthounlearn.methods.layers import classifier_with_bias, evaluating

_BATCH = 512  # images per pass: memory and speed, not the result


class Leace(UnlearningMethod):
    r"""The classifier reads r(x) = x − W⁺ P W (x − E x) instead of the features x.

    W = (Σ_xx^{1/2})⁺ whitens, P projects orthogonally onto the columns of W Σ_xz, and z holds the
    indicators of the forgotten classes. Among all affine maps after which z and the features are
    uncorrelated, so that no linear classifier beats a constant, r changes the features least in
    the mean square. It is folded into the classifier, A r(x) + b = A(I − Q) x + (b + A Q E x) with
    Q = W⁺ P W; nothing is left to take off.

    Source: Belrose et al., "LEACE: Perfect linear concept erasure in closed form",
    arXiv 2306.03819, theorem 4.3. No hyper-parameters, so nothing is tuned.

    Deviations: none in the formula. The paper erases a concept in language models; to forget a
    class of an image classifier by it, at the layer that the classifier reads, is our use.
    """

    prepare_uses = frozenset({"forget_train", "retain_train"})
    training_free = True

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Measure the class means and the covariance of what the classifier reads."""
        self._classifier = classifier_with_bias(net, context.example)
        dtype = torch.float32 if context.example.device.type == "mps" else torch.float64
        width, device = self._classifier.in_features, context.example.device
        sums_KD = torch.zeros(context.num_classes, width, dtype=dtype, device=device)
        counts_K = torch.zeros(context.num_classes, dtype=dtype, device=device)
        products_DD = torch.zeros(width, width, dtype=dtype, device=device)
        read: list[Tensor] = []
        handle = self._classifier.register_forward_pre_hook(
            lambda _, inputs: read.append(inputs[0])
        )
        splits: tuple[SplitName, ...] = ("forget_train", "retain_train")
        try:
            with evaluating(net), torch.no_grad():
                for split in splits:
                    for images, labels in context.batches(split, batch_size=_BATCH):
                        net(images)
                        features_BD = read.pop().to(dtype)
                        one_hot_KB = nn.functional.one_hot(labels, context.num_classes).to(dtype).T
                        counts_K += one_hot_KB.sum(1)
                        sums_KD.addmm_(one_hot_KB, features_BD)
                        products_DD.addmm_(features_BD.T, features_BD)
        finally:
            handle.remove()
        self._mean_D = sums_KD.sum(0) / counts_K.sum()
        self._covariance_DD = products_DD / counts_K.sum() - self._mean_D.outer(self._mean_D)
        self._cross_KD = (sums_KD - counts_K[:, None] * self._mean_D) / counts_K.sum()

    @torch.no_grad()
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Fold the eraser of the forgotten classes into the classifier."""
        erased_DD = erased_part(self._covariance_DD, self._cross_KD[list(context.forget)].T)
        weight, bias = self._classifier.weight, self._classifier.bias
        change_KD = weight.to(erased_DD) @ erased_DD
        weight.sub_(change_KD)
        bias.add_(change_KD @ self._mean_D)
        return net


def erased_part(covariance_DD: Tensor, cross_DZ: Tensor) -> Tensor:
    """Return Q = W⁺ P W (D, D), what LEACE takes away from centred features.

    Args:
        covariance_DD: Σ_xx. Directions without variance have none to lose.
        cross_DZ: Σ_xz.
    """
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    negligible = len(values_D) * torch.finfo(values_D.dtype).eps * values_D.max()
    kept = values_D > negligible
    basis_DR = vectors_DD[:, kept]
    scales_R = values_D[kept].sqrt()
    whitened_RZ = basis_DR.T @ cross_DZ / scales_R[:, None]
    left_RZ, sizes_Z, _ = torch.linalg.svd(whitened_RZ, full_matrices=False)
    rank_tolerance = max(whitened_RZ.shape) * torch.finfo(sizes_Z.dtype).eps
    spanning_RZ = left_RZ[:, sizes_Z > rank_tolerance * sizes_Z.max()]
    erased_DD: Tensor = (
        (basis_DR * scales_R) @ spanning_RZ @ (spanning_RZ.T @ (basis_DR / scales_R).T)
    )
    return erased_DD
