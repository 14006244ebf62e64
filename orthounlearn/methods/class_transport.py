"""Class transport: an edit for each class, learned before any request, added when one comes."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from orthounlearn.errors import UsageError
from orthounlearn.files import digest
from orthounlearn.masking.transport import Moments, beliefs_without, class_moments, transported
from orthounlearn.methods.base import Context, SplitName, UnlearningMethod
from orthounlearn.methods.critics import Critics
from orthounlearn.methods.layers import evaluating
from orthounlearn.models.blocks import block_outputs, parameters_after

_FORMAT = 1  # raise it when the same options would learn other edits
_PASS = 500  # images per pass without gradients: memory and speed, not the result
_GRADIENT_NORM = 5.0  # of a step; the first ones, far from the targets, would throw the net off


class ClassTransport(UnlearningMethod):
    r"""Each class gets an edit of the deeper layers, made while its images may still be used.

    The edit of class c is learned by a short distillation from the original network, in which
    images of c are to be seen as a network would see them that does not know c:

        KL(p^{-c}(x) ‖ q(x)) + λ Σ_l ‖h_l(x) − T_l(x)‖² − κ Σ_l log(1 − P_l(c | h_l(x)))
                                                       for images x of the class, and
        KL(p(x) ‖ q(x)) + λ ρ Σ_l ‖h_l(x) − h⁰_l(x)‖²  for all others.

    q are the probabilities of the edited network and p the original's, p^{-c} renormalised without
    c; h_l are the pooled outputs of the blocks after the cut, h⁰_l the original's, and T_l is where
    class transport puts them (`masking.transport.transported`), measured in standard deviations
    and averaged over the channels. P_l are linear critics that learn, step by step beside the
    network, to tell the classes by h_l (`methods.critics`): transport says where an image should
    lie, and they find what still gives it away. BatchNorm stays frozen. What is kept is the
    difference of the weights; the request adds it: no data, no forward pass, nothing to take off
    again. Several classes: the sum of their edits, so their order plays no part.

    Source: ours. The distillation target without the class is that of DELETE (Zhou et al., CVPR
    2025), the discriminant is Fisher's, the critics are those of domain-adversarial training
    (Ganin et al., arXiv 1505.07818).

    Args:
        cut: Share of the network's blocks that stay as they are, in [0, 1): early layers hold
            little that tells one class from the others.
        temperature: Of p^{-c} in T_l, above 0; below 1 an image goes to the class that it is most
            like and not in between, where no image of any class lies.
        overshoot: a in T_l; above 1, since a distilled network stops short of its target.
        feature_weight: λ, at least 0.
        retain_weight: ρ, at least 0.
        critic_weight: κ, at least 0.
        steps: Of the optimiser (AdamW, one cycle), for each class.
        batch_size: Images of the class, and as many others, in a step.
        learning_rate: The highest of the cycle.
        max_images: Kept in memory to learn from, spread evenly over the classes.
        classes: Numbers of the classes that a request may ask for; None prepares all.

    Raises:
        UsageError: An option is out of range; in `unlearn`, a class was not prepared.
    """

    prepare_uses = frozenset({"forget_train", "retain_train"})
    training_free = True

    def __init__(
        self,
        *,
        cut: float,
        temperature: float,
        overshoot: float,
        feature_weight: float,
        retain_weight: float,
        critic_weight: float,
        steps: int,
        batch_size: int,
        learning_rate: float,
        max_images: int,
        classes: Sequence[int] | None = None,
    ) -> None:
        if not 0 <= cut < 1 or temperature <= 0:
            raise UsageError(
                "Expected method.cut in [0, 1) and method.temperature above 0, "
                f"but got {cut} and {temperature}."
            )
        if min(steps, batch_size, max_images) < 1:
            raise UsageError(
                "Expected method.steps, method.batch_size and method.max_images of at least 1, "
                f"but got {steps}, {batch_size} and {max_images}."
            )
        self.cut = cut
        self.temperature = temperature
        self.overshoot = overshoot
        self.feature_weight = feature_weight
        self.retain_weight = retain_weight
        self.critic_weight = critic_weight
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_images = max_images
        self._classes = classes

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Learn the edit of every class that there are images of, or read it where it is kept."""
        layers, names = self._after_cut(net, context.example)
        options = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        settings = digest([options, context.seed, _FORMAT])[:12]
        seen: list[Seen] = []  # gathered once, and only if there is something to learn

        def learn(label: int) -> dict[str, Tensor]:
            if not seen:
                seen.append(self._look(net, context, layers))
            return self._learn(net, context, seen[0], names, label)

        self._parameters = [net.get_parameter(name).detach() for name in names]
        self._edits: dict[int, list[Tensor]] = {}
        for label in self._prepared(context.num_classes):
            kept = context.kept(net, f"transport-{settings}-{label}", partial(learn, label))
            self._edits[label] = [kept[name] for name in names]

    @torch.no_grad()
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Add the edits. Without data, without a forward pass."""
        missing = [label for label in context.forget if label not in self._edits]
        if missing:
            raise UsageError(
                f"Expected a request for classes that were prepared, out of {sorted(self._edits)}, "
                f"but got {missing}. Add them to method.classes, or prepare all with null."
            )
        for label in context.forget:
            torch._foreach_add_(self._parameters, self._edits[label])
        return net

    def _prepared(self, num_classes: int) -> Sequence[int]:
        if self._classes is None:
            return range(num_classes)
        unknown = [label for label in self._classes if not 0 <= label < num_classes]
        if unknown:
            raise UsageError(
                f"Expected method.classes in 0 to {num_classes - 1}, but got {unknown}."
            )
        return self._classes

    def _after_cut(self, net: nn.Module, example: Tensor) -> tuple[tuple[str, ...], list[str]]:
        """Return the blocks after the cut and the parameters that are edited."""
        blocks = block_outputs(net, example)
        untouched = int(self.cut * len(blocks))
        every = [name for name, parameter in net.named_parameters()]
        if not untouched:
            return blocks, every
        return blocks[untouched:], list(parameters_after(net, example, blocks[untouched - 1]))

    def _look(self, net: nn.Module, context: Context, layers: tuple[str, ...]) -> "Seen":
        """Run the original network over the images to learn from."""
        room_K = torch.full((context.num_classes,), self.max_images // context.num_classes)
        images, labels = [], []
        splits: tuple[SplitName, ...] = ("forget_train", "retain_train")
        for split in splits:
            for images_B, labels_B in context.batches(split, batch_size=_PASS):
                taken = _within(room_K, labels_B.cpu()).to(labels_B.device)
                images.append(images_B[taken].half())
                labels.append(labels_B[taken])
        labels_N = torch.cat(labels)
        # By class: which of them is asked for decides the order of the sets, but not the edits.
        by_class = torch.argsort(labels_N, stable=True)
        images_N, labels_N = torch.cat(images)[by_class], labels_N[by_class]
        logits: list[Tensor] = []
        features: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        with evaluating(net), torch.no_grad(), reading(net, layers) as read:
            for batch in torch.split(images_N, _PASS):
                with context.autocast():
                    logits.append(net(batch.float()).float())
                for layer in layers:
                    features[layer].append(read[layer])
        whole = {layer: torch.cat(parts) for layer, parts in features.items()}
        moments = {
            layer: class_moments(values_NC, labels_N, context.num_classes)
            for layer, values_NC in whole.items()
        }
        return Seen(images_N, labels_N, torch.cat(logits), whole, moments)

    def _learn(
        self, original: nn.Module, context: Context, seen: "Seen", names: list[str], label: int
    ) -> dict[str, Tensor]:
        """Distil the network that does not know a class; return what its weights differ by."""
        before = {name: original.get_parameter(name).detach() for name in names}
        ours = torch.nonzero(seen.labels_N == label)[:, 0]
        others = torch.nonzero(seen.labels_N != label)[:, 0]
        if not len(ours) or not len(others):  # gone already, or the last one
            return {name: torch.zeros_like(tensor) for name, tensor in before.items()}
        targets = self._targets(seen, label, ours)
        net = copy.deepcopy(original).eval()
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in before)
        edited = [parameter for parameter in net.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(edited, lr=self.learning_rate, weight_decay=0.0)
        schedule = OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.steps + 1, pct_start=0.2
        )
        draws = torch.Generator().manual_seed(context.seed * 1_000_003 + label)
        critics = Critics(seen.features, context.num_classes)
        # As many images of the class as of all others, but to a critic all classes are equal.
        weights_B = torch.ones(2 * self.batch_size, device=seen.labels_N.device)
        weights_B[: self.batch_size] = 1 / (context.num_classes - len(seen.absent) - 1)
        with reading(net, tuple(seen.features)) as read:
            for _ in range(self.steps):
                chosen = torch.cat(
                    [part[torch.randint(len(part), (self.batch_size,), generator=draws)]
                     for part in (ours, others)]
                )  # fmt: skip
                with context.autocast():
                    logits = net(seen.images_N[chosen].float())
                loss = (
                    F.kl_div(
                        F.log_softmax(logits.float(), 1),
                        targets.beliefs_NK[chosen],
                        reduction="sum",
                    )
                    / self.batch_size
                )
                for layer, wanted_NC in targets.features.items():
                    errors_BC = (read[layer] - wanted_NC[chosen]) / seen.moments[layer].deviation_C
                    of_class, of_others = errors_BC.square().mean(1).chunk(2)
                    loss += self.feature_weight * (
                        of_class.mean() + self.retain_weight * of_others.mean()
                    )
                first = {layer: values_BC[: self.batch_size] for layer, values_BC in read.items()}
                loss += self.critic_weight * critics.recognition(first, label)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(edited, _GRADIENT_NORM)
                optimizer.step()
                schedule.step()
                critics.learn(read, seen.labels_N[chosen], weights_B)
        return {name: net.get_parameter(name).detach() - before[name] for name in names}

    def _targets(self, seen: "Seen", label: int, ours: Tensor) -> "Targets":
        """Return what the edited network should say and compute of every image."""
        gone = [label, *seen.absent]
        beliefs_NK = seen.logits_NK.softmax(1)
        beliefs_NK[ours] = beliefs_without(seen.logits_NK[ours], gone)
        sharp_NK = beliefs_without(seen.logits_NK[ours], gone, temperature=self.temperature)
        features = {}
        for layer, original_NC in seen.features.items():
            features[layer] = original_NC.clone()
            features[layer][ours] = transported(
                original_NC[ours],
                seen.moments[layer],
                label=label,
                beliefs_NK=sharp_NK,
                overshoot=self.overshoot,
            )
        return Targets(beliefs_NK, features)


@dataclass(frozen=True)
class Seen:
    """What the original network makes of the images to learn from.

    Attributes:
        images_N: float16 (N, C, H, W).
        labels_N: int64 (N,).
        logits_NK: (N, K).
        features: Layer -> pooled output (N, C).
        moments: Layer -> its moments.
    """

    images_N: Tensor
    labels_N: Tensor
    logits_NK: Tensor
    features: dict[str, Tensor]
    moments: dict[str, Moments]

    @property
    def absent(self) -> list[int]:
        """Classes without images: earlier requests have deleted them."""
        counts_K = torch.bincount(self.labels_N, minlength=self.logits_NK.shape[1])
        return [int(label) for label in torch.nonzero(counts_K == 0)]


@dataclass(frozen=True)
class Targets:
    """What an edited network should say and compute.

    Attributes:
        beliefs_NK: Probabilities of each image.
        features: Layer -> pooled output (N, C).
    """

    beliefs_NK: Tensor
    features: dict[str, Tensor]


@contextmanager
def reading(net: nn.Module, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that holds the pooled output (B, C) of each layer after every forward pass."""
    read: dict[str, Tensor] = {}
    handles = [
        net.get_submodule(layer).register_forward_hook(
            lambda _, __, output, layer=layer: read.__setitem__(layer, output.float().mean((2, 3)))
        )
        for layer in layers
    ]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def _within(room_K: Tensor, labels_B: Tensor) -> Tensor:
    """Return which images still have room in their class, and take it up."""
    one_hot_BK = F.one_hot(labels_B, len(room_K))
    earlier_B = (one_hot_BK.cumsum(0) * one_hot_BK).sum(1)  # 1 for the first of a class
    taken_B = earlier_B <= room_K[labels_B]
    room_K -= one_hot_BK[taken_B].sum(0)
    return taken_B
