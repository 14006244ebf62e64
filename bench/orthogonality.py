"""What the orthogonal-kernel loss adds to a training step, on average over steps."""

import torch
from torch import nn
from torch.optim import Optimizer

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired, repeated
from orthounlearn.config.build import build
from orthounlearn.lit.classifier import parameter_groups
from orthounlearn.orthogonality.penalties import Penalty

_TERMS = 5  # per turn: a step takes as long as dozens of them


def measure(setting: Setting) -> list[Row]:
    """Time the term alone (forward and backward), and steps of ResNet-18 with and without it."""
    rounds = setting.choose(5, 2)
    experiment = setting.experiment("model=resnet18", "regularizer=so")
    config = experiment.config
    penalty = build(config["regularizer"]["penalty"], Penalty)
    net = experiment.new_net(0).train()
    optimizer: Optimizer = build(config["optimizer"])(parameter_groups(net))
    criterion = nn.CrossEntropyLoss(label_smoothing=config["recipe"]["label_smoothing"])
    batch_size, size = config["recipe"]["batch_size"], experiment.data.image_size
    images = torch.randn(batch_size, experiment.data.in_channels, size, size)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size) % experiment.data.num_classes

    def step(*, with_term: bool) -> None:
        with experiment.autocast():
            loss = criterion(net(images), labels)
        if with_term:
            loss = loss + penalty(net)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def term() -> None:
        # On top of the gradients of the step before, as in a step: adding them up is part of it.
        penalty(net).backward()

    times = paired(
        lambda: step(with_term=False),
        lambda: step(with_term=True),
        repeated(term, _TERMS),
        rounds=rounds,
    )
    direct = Spread.of(with_term / without for without, with_term, _ in times)
    step_s, _, terms_s = (Spread.of(way).median for way in zip(*times, strict=True))
    return [
        Row(
            "orthogonality",
            f"a step of ResNet-18, batch {batch_size}, and the SO term by itself",
            "the step without the term",
            Spread.of(1 + terms / _TERMS / penalty.every / without for without, _, terms in times),
            Target("at most", 1.05),
            note=f"term {terms_s / _TERMS * 1e3:.3g} ms in one of {penalty.every} steps of "
            f"{step_s * 1e3:.4g} ms; such a step against one without: {direct.median:.3f} "
            f"({direct.low:.3f}..{direct.high:.3f})",
        )
    ]
