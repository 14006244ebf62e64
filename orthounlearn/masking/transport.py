"""Where the features of a forgotten image should lie, in closed form.

Two answers. If there is a network that never saw the class, its features translated into those of
the original network (`LinearMap`). If there is none, moved along Fisher's discriminant towards
the retained classes that the original would choose between if it did not know the class
(`transported`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGE = 1e-3  # of the mean variance: a channel that is never active has none to divide by
_LOOSE_RIDGE = 1e-2  # a map that is used on images of a class that it was not fitted on


@dataclass(frozen=True)
class Moments:
    """What the pooled features of one layer look like, class by class.

    Attributes:
        means_KC: Of each class; 0 for a class without images.
        precision_CC: Inverse of the covariance Σ within the classes.
        deviation_C: Square root of the diagonal of Σ: the unit in which distances are measured.
    """

    means_KC: Tensor
    precision_CC: Tensor
    deviation_C: Tensor


def class_moments(features_NC: Tensor, labels_N: Tensor, num_classes: int) -> Moments:
    """Measure the class means and the pooled covariance within the classes.

    Args:
        features_NC: Pooled features of N images.
        labels_N: int64, in 0..K-1.
        num_classes: K.
    """
    wide_NC = features_NC.to(_wide(features_NC))
    one_hot_KN = torch.nn.functional.one_hot(labels_N, num_classes).to(wide_NC).T
    means_KC = one_hot_KN @ wide_NC / one_hot_KN.sum(1, keepdim=True).clamp(min=1)
    centred_NC = wide_NC - means_KC[labels_N]
    covariance_CC = centred_NC.T @ centred_NC / len(centred_NC)
    covariance_CC = _ridged(covariance_CC, _RIDGE)
    return Moments(
        means_KC=means_KC.to(features_NC),
        precision_CC=torch.linalg.inv(covariance_CC).to(features_NC),
        deviation_C=covariance_CC.diagonal().sqrt().to(features_NC),
    )


@dataclass(frozen=True)
class LinearMap:
    """A ridge regression: what one thing would be, told from another, image by image.

    From the features of one network to those of another, fitted on retained images, it tells what
    the other would compute. It adds nothing: a class that no linear classifier finds in what comes
    in, none finds in what comes out.

    Attributes:
        weight_CD: Of the centred features.
        mean_C: Of what comes in.
        mean_D: Of what comes out.
    """

    weight_CD: Tensor
    mean_C: Tensor
    mean_D: Tensor

    @classmethod
    def fit(cls, from_NC: Tensor, to_ND: Tensor, *, ridge: float = _LOOSE_RIDGE) -> "LinearMap":
        """Return the map that fits best.

        Args:
            from_NC: What comes in, of N images.
            to_ND: What is to come out.
            ridge: Added to the covariance's diagonal, as a share of the mean variance.
        """
        wide_NC, wide_ND = (features.to(_wide(features)) for features in (from_NC, to_ND))
        mean_C, mean_D = wide_NC.mean(0), wide_ND.mean(0)
        centred_NC = wide_NC - mean_C
        covariance_CC = _ridged(centred_NC.T @ centred_NC / len(centred_NC), ridge)
        covariance_CD = centred_NC.T @ (wide_ND - mean_D) / len(centred_NC)
        weight_CD = torch.linalg.solve(covariance_CC, covariance_CD)
        return cls(*(tensor.to(to_ND) for tensor in (weight_CD, mean_C, mean_D)))

    def __call__(self, features_NC: Tensor) -> Tensor:
        """Return what comes out (N, D)."""
        return (features_NC - self.mean_C) @ self.weight_CD + self.mean_D


def beliefs_without(logits_NK: Tensor, gone: list[int], *, temperature: float = 1.0) -> Tensor:
    """Return the softmax over the classes that are left, (N, K); 0 for those that are gone.

    Args:
        logits_NK: Of the original network.
        gone: Classes to leave out.
        temperature: Below 1 sharpens: 0 would be the most likely class alone.
    """
    masked_NK = logits_NK.clone()
    masked_NK[:, gone] = -torch.inf
    return torch.softmax(masked_NK / temperature, 1)


def transported(
    features_NC: Tensor,
    moments: Moments,
    *,
    label: int,
    beliefs_NK: Tensor,
) -> Tensor:
    """Move features of a class towards what the retained classes would make of them.

    With d_i = Σ_j p_ij μ_j, s_i = μ_c − d_i and w_i = Σ⁻¹s_i / (s_iᵀΣ⁻¹s_i), Fisher's discriminant
    scaled so that it reads 1 at the mean of the class and 0 at the destination,

        x_i ← x_i − max(0, (x_i − d_i)·w_i) · s_i .

    This takes away exactly what the discriminant sees; features on the far side stay as they are.

    Args:
        features_NC: x, of images of the class.
        moments: Of the layer.
        label: c.
        beliefs_NK: p, from `beliefs_without`.
    """
    destinations_NC = beliefs_NK.to(features_NC) @ moments.means_KC
    shifts_NC = moments.means_KC[label] - destinations_NC
    discriminants_NC = shifts_NC @ moments.precision_CC
    lengths_N1 = (discriminants_NC * shifts_NC).sum(1, keepdim=True)
    readings_N1 = ((features_NC - destinations_NC) * discriminants_NC).sum(1, keepdim=True)
    shares_N1 = readings_N1 / lengths_N1.clamp(min=torch.finfo(lengths_N1.dtype).tiny)
    return features_NC - shares_N1.clamp(min=0) * shifts_NC


def _ridged(covariance_CC: Tensor, share: float) -> Tensor:
    """Add a share of the mean variance to the diagonal, in place; more than 0 if all is dead."""
    smallest = torch.finfo(covariance_CC.dtype).eps
    covariance_CC.diagonal().add_(share * covariance_CC.diagonal().mean().clamp(min=smallest))
    return covariance_CC


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64
