"""Class-discriminative pruning by TF-IDF, without and with its fine-tuning."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from orthounlearn.masking.attenuation import Attenuation, NormHandling
from orthounlearn.masking.channels import ChannelEdit, record_edits
from orthounlearn.masking.scores import tf_idf
from orthounlearn.masking.strengths import rank_strengths
from orthounlearn.masking.tracing import select_sites, trace_sites
from orthounlearn.methods.base import Batch, Context, LossMethod, Training, UnlearningMethod


class TfIdfPrune(UnlearningMethod):
    r"""Remove the share of all channels with the highest TF·IDF, ranked over all convolutions.

    TF_j = A_Fj / Σ_j A_Fj over the channels of a layer, IDF_j = log((1 + K) / (1 + #{c : A_cj ≥
    mean_c A_cj})), with A_cj the mean over pixels and images of class c of ReLU(convolution
    output), before BatchNorm.

    Source: Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning",
    arXiv 2110.11794; wangjunxiao/unlearning (share on CIFAR-10: 0.04 to 0.06 for ResNets, 0.10 to
    0.17 for VGGs; CIFAR-100: 0.10 and 0.15).

    Deviations:
        The most discriminative channels go, as in the paper. The released code keeps the channels
        above the threshold and so removes the least discriminative ones.
        IDF has the paper's 1 + K; the released code has K.
        A is measured on the whole train set without augmentation, theirs on up to 200 augmented
        batches.
        A removed channel is silent: BatchNorm's scale and shift become 0 with it. The released
        code zeroes the kernel alone (`norm_handling=literal`), and BatchNorm then puts out a
        constant.

    Args:
        rate: Share of all channels, in (0, 1].
        norm_handling: "clean" or "literal"; see `masking.attenuation.Attenuation`.
    """

    prepare_uses = frozenset({"forget_train", "retain_train"})
    training_free = True

    def __init__(self, *, rate: float = 0.05, norm_handling: NormHandling = "clean") -> None:
        rank_strengths(torch.zeros(1), rate=rate, floor=1)  # refuses what is out of range
        self.rate = rate
        self.norm_handling = norm_handling

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Measure the classes at the output of every convolution."""
        traced = select_sites(trace_sites(net, context.example), "convs")
        convs = {s: s.producers[0].conv for s in traced if s.producers[0].conv is not None}
        # Names of their own: the statistics of the same sites after BatchNorm are others.
        before_norms = tuple(
            replace(site, name=f"{site.name} before norm", probe=conv)
            for site, conv in convs.items()
        )
        statistics = context.statistics(net, sites=before_norms, pooling="mean")
        self._names = [site.name for site in convs]
        self._sums = [statistics.sums[site.name] for site in before_norms]
        self._counts_K = statistics.counts_K
        self._attenuation = Attenuation(net, list(convs), norm_handling=self.norm_handling)

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Rank and remove. Without data."""
        factors = [1 - strength_C for strength_C in self._strengths(context.forget)]
        self._shaped: list[Tensor] = self._attenuation.shape(factors)
        self.remove_again()
        return net

    def _scores(self, forget: tuple[int, ...]) -> list[Tensor]:
        return [tf_idf(sums_KC, self._counts_K, forget) for sums_KC in self._sums]

    def _strengths(self, forget: tuple[int, ...]) -> list[Tensor]:
        scores = self._scores(forget)
        strengths = rank_strengths(torch.cat(scores), rate=self.rate, floor=1)
        return list(torch.split(strengths, [len(score_C) for score_C in scores]))

    def channels(self, forget: tuple[int, ...]) -> dict[str, ChannelEdit]:
        """Return scores and strengths of every convolution."""
        return record_edits(
            self._names, self._counts_K, forget, scores=self._scores, strengths=self._strengths
        )

    def remove_again(self) -> None:
        """Set the removed channels back to zero after something has changed them."""
        self._attenuation.apply(self._shaped)


class TfIdfPruneTuned(LossMethod):
    r"""TF-IDF pruning, then CE(D_r) with the removed channels held at zero.

    Source: see `TfIdfPrune` (fine-tuning: SGD 0.1, Nesterov momentum 0.9, weight decay 5e-4,
    cosine schedule, 10 epochs, batch 128).

    Deviations:
        Those of `TfIdfPrune`.
        The learning rate is constant, as for every method here, and tuned; theirs falls to 0
        along a cosine.
        Removed channels stay removed. The released code fine-tunes without its masks, so that
        they can grow back.

    Args:
        rate: See `TfIdfPrune`.
        norm_handling: See `TfIdfPrune`.
        optimizer: See `LossMethod`.
        epochs: See `LossMethod`.
        batch_size: See `LossMethod`.
        batch_norm: See `LossMethod`.
    """

    prepare_uses = TfIdfPrune.prepare_uses
    uses = frozenset({"retain_train"})

    def __init__(
        self,
        *,
        rate: float = 0.05,
        norm_handling: NormHandling = "clean",
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        self.pruning = TfIdfPrune(rate=rate, norm_handling=norm_handling)

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Measure the classes."""
        self.pruning.prepare(net, context)

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Prune."""
        return self.pruning.unlearn(net, context)

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy of the retained images."""
        images, labels = batch["retain_train"]
        return F.cross_entropy(net(images), labels)

    def after_step(self, net: nn.Module, optimizer: Optimizer) -> None:  # noqa: ARG002 - a hook
        """Keep the removed channels out."""
        self.pruning.remove_again()

    def channels(self, forget: tuple[int, ...]) -> dict[str, ChannelEdit]:
        """Return scores and strengths of every convolution."""
        return self.pruning.channels(forget)
