"""The requests of our methods: what happens when somebody asks to be forgotten."""

from typing import cast

import torch
from torch import Tensor, nn

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired, repeated
from orthounlearn.config.build import build
from orthounlearn.masking.statistics import ClassStatistics, Pooling, class_statistics
from orthounlearn.masking.tracing import Site
from orthounlearn.methods.base import Context, UnlearningMethod


class _Request:
    """The least context that our methods need; statistics and edits are random."""

    seed = 0

    def __init__(self, forget: tuple[int, ...], example: Tensor, num_classes: int) -> None:
        self.forget = forget
        self.example = example
        self.num_classes = num_classes

    def statistics(
        self, net: nn.Module, *, sites: tuple[Site, ...], pooling: Pooling
    ) -> ClassStatistics:
        """Measure random images; only that there are statistics plays a part."""
        labels = torch.arange(2 * self.num_classes) % self.num_classes
        batch = (torch.randn(len(labels), *self.example.shape[1:]), labels)
        return class_statistics(
            net, [batch], sites=sites, num_classes=self.num_classes, pooling=pooling
        )

    def kept(self, net: nn.Module, _: str, __: object) -> dict[str, Tensor]:
        """Return an edit of every weight for every class: so small that all stays finite."""
        small = {name: 1e-6 * torch.randn_like(p) for name, p in net.named_parameters()}
        return {f"{label}.{k}": v for label in range(self.num_classes) for k, v in small.items()}


def measure(setting: Setting) -> list[Row]:
    """Time requests on ResNet-18 with the default settings, against copying what they change.

    Soft pruning multiplies by 0 or 1 by default, so that any number of repetitions keeps the
    weights finite. A request for one class finds its factors made in advance; one for two classes
    has to rank the channels first. Class transport adds to whole kernels.
    """
    requests = (("soft_prune", (3,), 1), ("soft_prune", (3, 5), 1), ("class_transport", (3,), 20))
    return [row for request in requests for row in _request(setting, *request)]


def _request(setting: Setting, name: str, forget: tuple[int, ...], limit_ms: float) -> list[Row]:
    rounds, calls = setting.choose((21, 500), (2, 5))
    experiment = setting.experiment("model=resnet18", f"method={name}")
    net = _with_biases(experiment.new_net(0)).eval()
    method = build(experiment.config["method"], UnlearningMethod)
    context = cast("Context", _Request(forget, experiment.example(), experiment.data.num_classes))
    method.prepare(net, context)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    method.unlearn(net, context)
    changed = [t for name, t in net.state_dict().items() if not torch.equal(t, before[name])]

    times = paired(
        repeated(lambda: method.unlearn(net, context), calls),
        repeated(lambda: [tensor.clone() for tensor in changed], calls),
        rounds=rounds,
    )
    title = f"{name}, ResNet-18, {len(forget)} of {context.num_classes} classes"
    numbers = sum(tensor.numel() for tensor in changed)
    return [
        Row(
            "request",
            title,
            "",
            Spread.of(request / calls * 1e3 for request, _ in times),
            Target("at most", limit_ms),
            unit="ms",
            note=f"{len(changed)} tensors with {numbers} numbers change",
        ),
        Row(
            "request",
            title,
            "copying the tensors that it changes",
            Spread.of(request / copy for request, copy in times),
            # Copying knows nothing of ranking channels, which two classes need.
            Target("at most", 3) if len(forget) == 1 else None,
        ),
    ]


def _with_biases(net: nn.Module) -> nn.Module:
    """Give the biases values as after training: a bias of 0 would not show that it is edited."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net
