"""Class transport: edits that are learned before the request, kept, added and summed."""

import copy
import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.engine.kept import keep
from orthounlearn.errors import UsageError
from orthounlearn.methods.class_edits.held_out import hold_out
from orthounlearn.methods.class_edits.inputs import Place, look
from orthounlearn.methods.class_transport import ClassTransport
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy, convolutional, perceptron

OPTIONS = {
    "cut": 0.0, "feature_weight": 0.5, "retain_weight": 3.0, "critic_weight": 0.3,
    "held_out_steps": 60, "steps": 60, "batch_size": 16, "learning_rate": 1e-2,
    "sum_steps": 20, "sum_learning_rate": 1e-3, "max_images": 40,
}  # fmt: skip


@functools.cache
def _trained() -> nn.Module:
    """A network that knows the toy's classes: it has something to forget."""
    net = convolutional().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    images = IMAGES + LABELS[:, None, None, None] * torch.tensor([1.0, -1.0, 0.5])[:, None, None]
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(net(images), LABELS).backward()
        optimizer.step()
    return net.eval()


def trained() -> nn.Module:
    return copy.deepcopy(_trained())


SHIFTED = IMAGES + LABELS[:, None, None, None] * torch.tensor([1.0, -1.0, 0.5])[:, None, None]


def carried_out(net: nn.Module, *forget: int, **options: object) -> nn.Module:
    method = ClassTransport(**OPTIONS | {"classes": forget} | options)
    context = Toy(*forget, images=SHIFTED)
    method.prepare(net, context)
    return method.unlearn(net, context)


@torch.no_grad()
def predicted(net: nn.Module) -> Tensor:
    return net(SHIFTED).argmax(1)


def test_class_is_no_longer_predicted_and_the_others_are():
    net = trained()
    assert (predicted(net) == LABELS).float().mean() > 0.95
    found = predicted(carried_out(net, 2, steps=200))
    assert (found[LABELS == 2] == 2).float().mean() == 0
    assert (found[LABELS != 2] == LABELS[LABELS != 2]).float().mean() > 0.9


def test_forgotten_images_get_the_beliefs_of_the_network_that_never_saw_the_class():
    """Not the original's without the class: these know which of the others is most like it."""
    net, place = trained(), Place.after(trained(), IMAGES, 0.0)
    seen = look(net, Toy(2, images=SHIFTED), place, max_images=40)
    method = ClassTransport(**OPTIONS)
    wanted = hold_out(net, Toy(2, images=SHIFTED), place, seen, method.recipe, 2).beliefs_MK
    after = carried_out(trained(), 2, steps=300, feature_weight=0, critic_weight=0)(SHIFTED)
    after = after[LABELS == 2].index_fill(1, torch.tensor([2]), -30).log_softmax(1)
    before = trained()(SHIFTED[LABELS == 2]).log_softmax(1)
    assert F.kl_div(after, wanted, reduction="batchmean") < 0.1
    assert F.kl_div(before, wanted, reduction="batchmean") > 1


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_several_classes_are_the_sum_of_their_edits_in_any_order():
    start = state(trained())
    edits = []
    for forget in ((1,), (2,), (1, 2), (2, 1)):
        after = state(carried_out(trained(), *forget, classes=None))
        edits.append({name: after[name] - start[name] for name in start})
    *_, weight, bias = start  # the rows of both are replaced, in whichever request
    for name in start:
        summed = edits[0][name] + edits[1][name]
        if name in (weight, bias):
            summed[1], summed[2] = edits[0][name][1], edits[1][name][2]
        torch.testing.assert_close(edits[2][name], summed, atol=1e-5, rtol=0)
        torch.testing.assert_close(edits[3][name], edits[2][name], atol=1e-6, rtol=1e-6)


def test_blocks_before_the_cut_stay_as_they_are():
    torch.manual_seed(0)
    layers = [
        part for i, o in ((3, 6), (6, 6), (6, 6))
        for part in (nn.Conv2d(i, o, 3, padding=1), nn.ReLU())
    ]  # fmt: skip
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    before = state(net.eval())
    after = state(carried_out(net, 2, cut=0.4))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"2", "4", "8"}


def test_batch_norm_keeps_its_statistics():
    net = trained()
    before = state(net)
    after = state(carried_out(net, 2))
    for name in before:
        assert torch.equal(before[name], after[name]) == ("running" in name or "num_" in name)


def test_a_class_that_is_gone_plays_no_part():
    """Its images are deleted: it has no edit, and no image is sent to it."""
    method = ClassTransport(**OPTIONS)
    left = LABELS != 0
    net = trained()
    context = Toy(2, images=SHIFTED[left], labels=LABELS[left])
    method.prepare(net, context)
    assert all(not edit.any() for edit in method._edits[0])
    with torch.no_grad():
        said = method.unlearn(net, context)(SHIFTED[LABELS == 2]).softmax(1)
    assert said[:, 0].max() < 0.2


def test_memory_is_shared_evenly_by_the_classes():
    net, context = trained(), Toy(2, images=SHIFTED)
    seen = look(net, context, Place.after(net, IMAGES, 0.0), max_images=12)
    assert torch.bincount(seen.labels_N).tolist() == [3, 3, 3, 3]


def test_request_adds_what_was_kept(tmp_path):
    """A second request reads the edits: nothing is learned again."""
    calls = []

    class Stored(Toy):
        def kept(self, net, name, make):
            calls.append(name)
            return keep(tmp_path, net, name, make).tensors

    def run(context: Toy) -> nn.Module:
        net, method = trained(), ClassTransport(**OPTIONS)
        method.prepare(net, context)
        return method.unlearn(net, context)

    first, toy = run(Stored(2, images=SHIFTED)), Stored(2, images=SHIFTED)
    toy.batches = None  # nothing may be read
    second = run(toy)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert len(set(calls)) == 1


@pytest.mark.parametrize(
    ("option", "value"), [("cut", 1.0), ("cut", -0.1), ("held_out_steps", 0), ("steps", 0)]
)
def test_options_out_of_range_are_refused(option: str, value: float):
    with pytest.raises(UsageError, match=rf"method\.{option}"):
        ClassTransport(**OPTIONS | {option: value})


def test_only_the_named_classes_are_prepared():
    method = ClassTransport(**OPTIONS | {"sum_steps": 0}, classes=[1])
    net, context = trained(), Toy(1, images=SHIFTED)
    method.prepare(net, context)
    for one, other in zip(
        method.unlearn(net, context).parameters(),
        carried_out(trained(), 1, sum_steps=0, classes=None).parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)
    with pytest.raises(UsageError, match=r"out of \[1\], but got \[2\]"):
        method.unlearn(net, Toy(2))
    with pytest.raises(UsageError, match="in 0 to 3, but got"):
        ClassTransport(**OPTIONS, classes=[1, 4]).prepare(net, context)


def test_network_without_blocks_forgets_at_its_output():
    net = carried_out(perceptron(), 2, steps=200)
    assert not (predicted(net) == 2)[LABELS == 2].any()


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("class_transport_output", {"feature_weight": 0.0, "critic_weight": 0.0}),
        ("class_transport_features", {"critic_weight": 0.0}),
        ("class_transport_alone", {"sum_steps": 0}),
    ],
)
@pytest.mark.parametrize("experiment", ["digits_cpu", "cifar10_cpu"])
def test_controls_differ_in_what_they_lack(
    open_job, name: str, lacks: dict[str, float], experiment: str
):
    def options(method: str) -> dict[str, object]:
        overrides = f"experiment={experiment}", "data=digits", f"method={method}"
        node = open_job(*overrides).config["method"]
        return {k: v for k, v in node.items() if k not in ("name", "search", "tuned")}

    assert options(name) == options("class_transport") | lacks
