"""The row of a forgotten class: fitted without its images, the same in any order of requests."""

import copy

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from orthounlearn.methods.class_edits.inputs import Place, Seen, look
from orthounlearn.methods.class_edits.rows import Rows, strangers_rows
from orthounlearn.methods.class_transport import ClassTransport
from tests.methods.test_class_transport import OPTIONS, SHIFTED, carried_out, trained
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy


def inputs(net: nn.Module, images: Tensor = SHIFTED) -> tuple[Toy, Seen]:
    context = Toy(0, images=images)
    return context, look(net, context, Place.after(net, IMAGES, 0.0), max_images=40)


def rows_of(net: nn.Module, images: Tensor = SHIFTED) -> Rows:
    return strangers_rows(net, *inputs(net, images), range(CLASSES))


@pytest.mark.parametrize("label", range(CLASSES))
def test_it_is_the_ridge_regression_of_the_other_logits(label: int):
    net = trained()
    found = rows_of(net)
    seen = inputs(net)[1]
    others = seen.labels_N != label
    read: list[Tensor] = []
    handle = found.classifier.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    with torch.no_grad():
        net(seen.inputs.tensors_N.float())
    handle.remove()
    features = read[0][others].double()
    rest = seen.logits_NK[others].double()
    own, rest = rest[:, label], rest[:, [k for k in range(CLASSES) if k != label]].logsumexp(1)
    ridge = features.var(0, correction=0).mean().item() * len(features)
    wanted = Ridge(alpha=ridge).fit(features.numpy(), (rest + (own - rest).median()).numpy())
    torch.testing.assert_close(
        found.weight_KC[label].double(), torch.from_numpy(wanted.coef_), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(found.bias_K[label].item(), wanted.intercept_, atol=1e-4, rtol=1e-4)


def test_images_of_the_class_play_no_part():
    net = trained()
    other = SHIFTED.clone()
    other[LABELS == 2] = torch.randn_like(other[LABELS == 2])
    one, another = rows_of(net), rows_of(net, other)
    assert torch.equal(one.weight_KC[2], another.weight_KC[2])
    assert torch.equal(one.bias_K[2], another.bias_K[2])
    assert not torch.equal(one.weight_KC[1], another.weight_KC[1])


def test_a_forgotten_class_is_given_its_row_exactly():
    net = carried_out(trained(), 1, 3, classes=None)
    rows = rows_of(trained())
    classifier = rows.classifier.__class__  # the layer of another copy of the same network
    found = [module for module in net.modules() if isinstance(module, classifier)][-1]
    for label in (1, 3):
        assert torch.equal(found.weight[label], rows.weight_KC[label])
        assert torch.equal(found.bias[label], rows.bias_K[label])
    assert not torch.equal(found.weight[0], rows.weight_KC[0])


def test_classes_that_went_earlier_stay_gone():
    """The edits of later requests would move their rows; the order plays no part."""
    found = []
    for requests in (((1, 3),), ((1,), (3,)), ((3,), (1,))):
        net, method = trained(), ClassTransport(**OPTIONS)
        method.prepare(net, Toy(1, images=SHIFTED))
        for request in requests:
            method.unlearn(net, Toy(*request))
        assert sorted(method._rows.gone()) == [1, 3]
        found.append(copy.deepcopy(net.state_dict()))
    for name, tensor in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-6)


def test_a_class_that_was_not_prepared_has_no_row_and_is_not_gone():
    net, method = trained(), ClassTransport(**OPTIONS, classes=[1])
    method.prepare(net, Toy(1, images=SHIFTED))
    assert method._rows.gone() == []
    method.unlearn(net, Toy(1))
    assert method._rows.gone() == [1]
    assert net(SHIFTED).isfinite().all()


def test_the_only_class_keeps_what_it_has():
    net, method = trained(), ClassTransport(**OPTIONS)
    before = copy.deepcopy(net.state_dict())
    left = LABELS == 2
    method.prepare(net, Toy(2, images=SHIFTED[left], labels=LABELS[left]))
    method.unlearn(net, Toy(2))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


class Scaled(nn.Module):
    """A network whose logits do not come straight out of its classifier."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return 2 * self.net(images)


def test_where_logits_are_computed_further_there_are_no_rows():
    net = Scaled(trained())
    assert rows_of(net) is None
    forgotten = carried_out(net, 2, steps=300)
    with torch.no_grad():
        assert not (forgotten(SHIFTED).argmax(1) == 2)[LABELS == 2].any()
