"""Networks that pretend to have forgotten, and one that has; and what the audit says of each.

The same for a small network on Gaussian images and for ResNets on CIFAR-10.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.data.splits import SPLIT_NAMES, Splits
from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.audit.relearn import relearn
from orthounlearn.engine.experiment import Experiment
from orthounlearn.methods.head import find_classifier
from orthounlearn.metrics.comparison import against_both
from orthounlearn.metrics.relearn import Accuracies
from orthounlearn.metrics.sample import Sample, gap_intervals, values
from orthounlearn.metrics.suite import Outputs, samples
from orthounlearn.metrics.verdict import Verdict, judge


def _is_judged(key: str) -> bool:
    if key.endswith("_"):
        return False
    return key.startswith(("acc/", "mia/pop_margin/", "probe/", "compat/salun_c"))


@dataclass
class Court:
    """An original and networks retrained without a class, beside which others are judged."""

    experiment: Experiment
    label: int
    original: nn.Module
    retrained: Sequence[nn.Module]
    _known: dict[nn.Module, dict[str, Sample]] = field(default_factory=dict)

    @cached_property
    def splits(self) -> Splits:
        return self.experiment.splits([self.label])

    def outputs(self, net: nn.Module) -> Outputs:
        return predict(self.experiment, net, self.splits)

    def samples(self, net: nn.Module) -> dict[str, Sample]:
        if net not in self._known:
            found = samples(
                self.outputs(net),
                forget=[self.label],
                class_names=self.experiment.data.class_names,
                seed=self.splits.seed,
            )
            self._known[net] = {key: found[key] for key in found if _is_judged(key)}
        return self._known[net]

    def figures(self, net: nn.Module) -> dict[str, float]:
        return values(self.samples(net))

    def indices(self, net: nn.Module) -> dict[str, float]:
        """Return where a network stands between the original (1) and retraining (0)."""
        theirs = [self.figures(one) for one in self.retrained]
        mean = {key: fmean(one[key] for one in theirs) for key in theirs[0]}
        return against_both(self.figures(net), self.figures(self.original), mean)

    def relearned(self, net: nn.Module) -> dict[str, float]:
        """Return steps and area of relearning, as `metrics=standard` measures them."""
        known = self.figures(self.original)
        before = Accuracies(known["acc/forget_test"], known["acc/retain_test"])
        settings = self.experiment.config["metrics"]["relearn"]
        return relearn(self.experiment, net, self.splits, settings, original=before).values

    def verdict(self, net: nn.Module) -> Verdict:
        theirs = [self.samples(one) for one in self.retrained]
        ours = self.figures(net) | gap_intervals(self.samples(net), theirs)
        return judge(
            ours,
            self.figures(self.original),
            [values(one) for one in theirs],
            images={name: len(self.splits[name]) for name in SPLIT_NAMES},
        )

    def images(self, split: str, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` normalised images of a training split and their labels, shuffled."""
        loader = self.experiment.loader(self.splits, split, batch_size=count, shuffle=True, seed=0)
        images, labels = next(iter(loader))
        return self.experiment.transform.evaluate(images), labels


def masked(net: nn.Module, court: Court) -> nn.Module:
    """The logit of the class is lowered out of reach."""
    copied, head = _with_head(net, court)
    head.bias.data[court.label] = -1e4
    return copied


def clamped(net: nn.Module, court: Court) -> nn.Module:
    """The logit of the class is a low constant."""
    copied, head = _with_head(net, court)
    head.weight.data[court.label] = 0
    head.bias.data[court.label] = -20.0
    return copied


def head_distilled(net: nn.Module, court: Court, *, steps: int = 100) -> nn.Module:
    """The last layer alone learns to say what a retrained network says; the features stay."""
    copied, head = _with_head(net, court)
    images = torch.cat([court.images(s, 1500)[0] for s in ("retain_train", "forget_train")])
    features = _features(copied, head, images)
    with torch.no_grad():
        targets = court.retrained[0](images).softmax(1)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(features), targets).backward()
        optimizer.step()
    return copied


def erased(net: nn.Module, court: Court) -> nn.Module:
    """Linear erasure of the class between features and classifier (LEACE, arXiv 2306.03819).

    No linear reader of what comes out can tell the class; its logit is lowered as in `masked`.
    """
    copied, head = _with_head(net, court)
    images, labels = (torch.cat(part) for part in zip(*_all_images(court), strict=True))
    features = _features(copied, head, images).double()
    centre, is_class = features.mean(0), (labels == court.label).double()
    centred = features - centre
    covariance = centred.T @ centred / len(features)
    with_class = centred.T @ (is_class - is_class.mean()) / len(features)
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > 1e-6 * values[-1]
    root = values[kept].sqrt()
    whiten = vectors[:, kept] / root @ vectors[:, kept].T
    unwhiten = vectors[:, kept] * root @ vectors[:, kept].T
    direction = F.normalize(whiten @ with_class, dim=0)
    weight = torch.eye(len(centre)).double() - unwhiten @ direction.outer(direction) @ whiten
    head.bias.data[court.label] = -1e4
    return _before_head(copied, head, weight, centre - weight @ centre, head)


def stitched(net: nn.Module, court: Court) -> nn.Module:
    """A linear layer makes of the features those of a retrained network, whose head follows."""
    copied, head = _with_head(net, court)
    theirs, their_head = _with_head(court.retrained[0], court)
    images = torch.cat([images for images, _ in _all_images(court)])
    ours, wanted = (
        _features(one, last, images) for one, last in ((copied, head), (theirs, their_head))
    )
    design = F.pad(ours, (0, 1), value=1.0).double()
    ridge = 1e-3 * len(design) * torch.eye(design.shape[1]).double()
    solved = torch.linalg.solve(design.T @ design + ridge, design.T @ wanted.double())
    return _before_head(copied, head, solved[:-1].T, solved[-1], their_head)


def _all_images(court: Court) -> list[tuple[Tensor, Tensor]]:
    return [court.images(split, 10_000) for split in ("retain_train", "forget_train")]


@torch.no_grad()
def _features(net: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    for batch in images.split(500):
        net(batch)
    hook.remove()
    return torch.cat(caught)


def _before_head(
    net: nn.Module, head: nn.Linear, weight: Tensor, bias: Tensor, last: nn.Linear
) -> nn.Module:
    """Put a linear layer and `last` in the place of the head."""
    name = next(name for name, module in net.named_modules() if module is head)
    added = nn.Linear(weight.shape[1], weight.shape[0])
    added.weight.data, added.bias.data = weight.float(), bias.float()
    net.set_submodule(name, nn.Sequential(added, last))
    return net


def fine_tuned(net: nn.Module, court: Court, *, rate: float, steps: int) -> nn.Module:
    """A few steps on retained images: most of the class is still there."""
    return _trained(net, court, "retain_train", rate=rate, steps=steps)


def ascended(net: nn.Module, court: Court, *, rate: float, steps: int) -> nn.Module:
    """Too many steps up the loss of the forgotten images."""
    return _trained(net, court, "forget_train", rate=-rate, steps=steps)


def _trained(net: nn.Module, court: Court, split: str, *, rate: float, steps: int) -> nn.Module:
    copied = copy.deepcopy(net).eval()  # the statistics of batches of one class would be others
    optimizer = torch.optim.SGD(copied.parameters(), lr=abs(rate), maximize=rate < 0)
    images, labels = court.images(split, 128 * steps)
    batches = list(zip(images.split(128), labels.split(128), strict=True))
    for step in range(steps):  # again from the first, where the set has fewer
        batch, target = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(copied(batch), target).backward()
        nn.utils.clip_grad_norm_(copied.parameters(), 1.0)  # or ascent would end in nan
        optimizer.step()
    return copied


def _with_head(net: nn.Module, court: Court) -> tuple[nn.Module, nn.Linear]:
    copied = copy.deepcopy(net).eval()
    return copied, find_classifier(copied, court.experiment.example())
