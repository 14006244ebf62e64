"""DELETE: its target and its gradient by hand."""

import pytest
import torch
from torch.nn import functional as F

from orthounlearn.methods.delete import Delete
from tests.methods.references import assert_same, divergence
from tests.methods.toy import FROZEN, IMAGES, LABELS, OPTIONS, Toy, convolutional, trained

STUDENT = torch.randn(40, 4, generator=torch.Generator().manual_seed(5))


def test_delete_shares_out_the_true_class_among_the_others():
    net = convolutional()
    method = Delete(**OPTIONS)
    method.start(net, Toy(1))
    p = net(IMAGES).detach().softmax(1)
    target = p * (1 - F.one_hot(LABELS, 4))
    target /= target.sum(1, keepdim=True)
    student = STUDENT.clone().requires_grad_()
    loss = method.loss(lambda _: student, {"forget_train": (IMAGES, LABELS)})
    assert loss.item() == pytest.approx(divergence(target.log(), student).mean(), rel=1e-4)
    (found,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(found, (student.softmax(1) - target).detach() / 40)
    perfect = target.clamp(min=1e-30).log().requires_grad_()
    loss = method.loss(lambda _: perfect, {"forget_train": (IMAGES, LABELS)})
    assert torch.autograd.grad(loss, perfect)[0].abs().max() < 1e-7


def test_delete_reads_the_forget_set_alone_and_keeps_the_statistics():
    net = convolutional()
    method = Delete(**FROZEN)
    after = trained(method, net, 1)
    assert all(torch.equal(b, after.get_buffer(name)) for name, b in net.named_buffers())
    assert {split for phase in method.phases() for split in phase.sets} == {"forget_train"}
    assert_same(method._teacher, net)
