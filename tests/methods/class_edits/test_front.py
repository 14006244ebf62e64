"""What lies before the place is run once: replaying it changes no bit, or it is not replayed."""

import pytest
import torch
from torch import Tensor, nn

from orthounlearn.methods.class_edits import front, inputs
from orthounlearn.methods.class_edits.distil import learn_edit
from orthounlearn.methods.class_edits.front import Inputs, can_replay
from orthounlearn.methods.class_edits.inputs import Place, Recipe, look
from orthounlearn.models import resnet, vgg
from tests.methods.toy import CLASSES, LABELS, Toy

SIZE = 16
PICTURES = torch.randn(len(LABELS), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
RECIPE = Recipe(
    feature_weight=0.5, retain_weight=4.0, critic_weight=0.3, held_out_steps=10, steps=10,
    batch_size=8, learning_rate=3e-3, sum_steps=10, sum_learning_rate=2e-4,
)  # fmt: skip


class Small(nn.Module):
    """Two blocks; what follows them may ask how many images there were."""

    def __init__(self, *, counts: bool) -> None:
        super().__init__()
        self.counts = counts
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        shown = self.second(self.first(images)).mean((2, 3))
        return self.classifier(shown.reshape(len(images), 4) if self.counts else shown)


def networks() -> dict[str, nn.Module]:
    size = {"num_classes": CLASSES, "in_channels": 3, "image_size": SIZE, "width": 4}
    return {
        "resnet": resnet(depth=20, **size),
        "vgg": vgg(depth=11, **size),
        "own": Small(counts=False),
    }


@pytest.mark.parametrize("name", ["resnet", "vgg", "own"])
def test_replaying_changes_no_bit_of_an_edit(name: str, monkeypatch: pytest.MonkeyPatch):
    net = networks()[name].eval().to(memory_format=torch.channels_last)
    context = Toy(2, images=PICTURES)
    place = Place.after(net, context.example, 0.5)
    seen = look(net, context, place, max_images=len(LABELS))
    assert seen.inputs.block == place.before is not None
    monkeypatch.setattr(inputs, "can_replay", lambda *_: False)
    slowly = look(net, context, place, max_images=len(LABELS))
    assert slowly.inputs.block is None
    assert torch.equal(seen.logits_NK, slowly.logits_NK)
    one, other = (learn_edit(net, context, place, each, RECIPE, 2) for each in (seen, slowly))
    assert any(tensor.any() for tensor in one)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_lies_before_runs_on_one_image():
    net = networks()["own"].eval()
    context = Toy(2, images=PICTURES)
    seen = look(net, context, Place.after(net, context.example, 0.5), max_images=len(LABELS))
    counts: dict[str, int] = {}
    for name in ("first", "second"):
        module = net.get_submodule(name)[0]
        module.register_forward_hook(
            lambda _, given, __, name=name: counts.__setitem__(name, len(given[0]))
        )
    assert len(seen.inputs.forward(net, context, torch.arange(9))) == 9
    assert counts == {"first": 1, "second": 9}
    assert not any(module._forward_hooks for module in (net.first, net.classifier))


def test_a_network_that_counts_its_images_is_not_replayed():
    net, context = Small(counts=True).eval(), Toy(2, images=PICTURES)
    place = Place.after(net, context.example, 0.5)
    assert place.before is not None
    assert not can_replay(net, context, place.before, Inputs(PICTURES.half()))
    assert look(net, context, place, max_images=len(LABELS)).inputs.block is None


class Remembering(Small):
    """Adds to its answer what the images were before the first block, as one number."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + images.mean()


def test_a_network_that_goes_round_the_block_is_not_replayed():
    net, context = Remembering(counts=False).eval(), Toy(2, images=PICTURES)
    assert not can_replay(net, context, "first", Inputs(100 * PICTURES.half()))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    net, context = networks()["own"].eval(), Toy(2, images=PICTURES)
    images = Inputs(PICTURES.half())
    one = 4 * SIZE * SIZE * 4  # channels, pixels and bytes of what the first block puts out
    monkeypatch.setattr(front, "_MOST_BYTES", one * len(images))
    assert can_replay(net, context, "first", images)
    monkeypatch.setattr(front, "_MOST_BYTES", one * len(images) - 1)
    assert not can_replay(net, context, "first", images)


def test_nothing_lies_before_the_whole_network():
    net, context = networks()["own"].eval(), Toy(2, images=PICTURES)
    place = Place.after(net, context.example, 0.0)
    assert place.before is None
    assert not can_replay(net, context, place.before, Inputs(PICTURES.half()))
