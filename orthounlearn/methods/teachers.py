"""What several loss methods are made of: frozen teachers, their divergence, parts of a batch."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.methods.base import Context


def frozen_copy(net: nn.Module) -> nn.Module:
    """Return a copy in eval mode that no gradient reaches."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def kl_divergence(student_BK: Tensor, teacher_BK: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return T² · mean over the batch of KL(softmax(teacher / T) ‖ softmax(student / T)).

    Args:
        student_BK: Logits.
        teacher_BK: Logits; −∞ is a class without probability.
        temperature: T > 0. The factor T² keeps the size of the gradient (Hinton et al. 2015).
    """
    log_student_BK = F.log_softmax(student_BK.float() / temperature, dim=1)
    teacher_BK = F.softmax(teacher_BK.float() / temperature, dim=1)
    return F.kl_div(log_student_BK, teacher_BK, reduction="batchmean") * temperature**2


def forgotten_classes(context: Context) -> Tensor:
    """Return which classes are forgotten: bool (K,) on the device of the request."""
    forgotten_K = torch.zeros(context.num_classes, dtype=torch.bool, device=context.example.device)
    forgotten_K[list(context.forget)] = True
    return forgotten_K


def draw_share(count: int, share: float, *, always_B: Tensor) -> Tensor:
    """Draw which images of a batch take part, bool (B,), at least one of them.

    Over an epoch these are a random share of the data: the way to train on a subset when a batch
    does not say which images it holds.

    Args:
        count: Images in the batch.
        share: Probability of each of them.
        always_B: Those that take part in any case.
    """
    drawn_B = always_B | (torch.rand(count, device=always_B.device) < share)
    drawn_B[0] |= ~drawn_B.any()  # the last batch of an epoch may hold one image
    return drawn_B
