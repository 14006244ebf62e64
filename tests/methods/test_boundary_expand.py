"""Boundary Expanding: a further class takes the images in and goes again."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from orthounlearn.config import CONF_DIR
from orthounlearn.methods.boundary_expand import BoundaryExpand
from tests.methods.toy import FROZEN, IMAGES, LABELS, Toy


@pytest.mark.parametrize("bias", [True, False])
def test_expand_trains_a_further_class_and_drops_it(net: nn.Module, bias: bool):
    if not bias:
        net.classifier.bias = None
    names = net.state_dict().keys()
    weight = net.classifier.weight.detach().clone()
    before = net(IMAGES).detach()
    method = BoundaryExpand(**FROZEN)
    started = method.start(net, Toy(1))
    logits = started(IMAGES)
    assert logits.shape == (40, 5)
    torch.testing.assert_close(logits[:, :4].detach(), before)
    loss = method.loss(started, {"forget_train": (IMAGES, LABELS)})
    torch.testing.assert_close(loss, -logits.log_softmax(1)[:, 4].mean())

    optimizer = method.optimizer(method.parameters(started))
    loss.backward()
    optimizer.step()
    trained = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    finished = method.finish(started)
    assert finished.state_dict().keys() == names
    assert finished.classifier.out_features == 4
    for name, tensor in finished.state_dict().items():
        rows = trained[name][:4] if name.startswith("classifier") else trained[name]
        assert torch.equal(tensor, rows), name
    assert not torch.equal(finished.classifier.weight, weight)
    assert finished(IMAGES).shape == (40, 4)


def test_expand_draws_the_new_row_as_xavier_does():
    head = nn.Linear(4000, 6)
    net = nn.Sequential(nn.Flatten(), head)
    BoundaryExpand(**FROZEN).start(net, Toy(1, images=torch.zeros(40, 4000)))
    assert head.weight[6].std().item() == pytest.approx((2 / 4007) ** 0.5, rel=0.05)
    assert head.bias[6] == 0


def test_batches_of_the_forget_set_alone_freeze_the_statistics():
    assert OmegaConf.load(Path(CONF_DIR, "method", "boundary_expand.yaml")).batch_norm == "frozen"
