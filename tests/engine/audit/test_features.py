"""Features are what the layers really put out, pooled; nothing is left in the network."""

import numpy as np
import torch
from torch import nn

from orthounlearn.engine.audit.features import FeatureReader, concatenate
from orthounlearn.metrics.suite import CLASSIFIER
from orthounlearn.models.resnet import resnet

IMAGES = torch.rand(4, 3, 16, 16)


def test_features_equal_a_computation_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)
    ).eval()
    reader = FeatureReader(net, IMAGES)
    assert reader.layers == ("1", CLASSIFIER)
    with torch.inference_mode(), reader.reading(reader.layers) as read:
        net(IMAGES)
        found = read()
        pooled = net[0](IMAGES).relu().mean((2, 3)).half().numpy()
    np.testing.assert_array_equal(found["1"], pooled)
    np.testing.assert_array_equal(found[CLASSIFIER], pooled)


def test_only_the_wanted_layers_are_read_and_no_hook_stays():
    net = resnet(depth=18, num_classes=4, width=4, image_size=16).eval()
    reader = FeatureReader(net, IMAGES)
    with torch.inference_mode(), reader.reading(("2", CLASSIFIER)) as read:
        net(IMAGES)
        assert set(read()) == {"2", CLASSIFIER}
    with torch.inference_mode(), reader.reading(()) as read:
        net(IMAGES)
        assert read() == {}
    hooks = [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []


def test_a_network_without_linear_head_has_its_blocks_only():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert FeatureReader(net.eval(), IMAGES).layers == ("1",)


def test_logits_are_those_of_float32():
    """A masked logit in bfloat16 has steps of 64: all margins of the class would be equal."""
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    net[-1].bias.data[0] = -1e3
    reader = FeatureReader(net.eval(), IMAGES)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rounded = net(IMAGES)[:, 0]
        with reader.reading(()):
            exact = net(IMAGES)[:, 0]
    assert rounded.unique().numel() == 1
    assert exact.unique().numel() == len(IMAGES)


def test_features_of_a_network_that_was_blown_up_are_finite():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    net[0].weight.data *= 1e8
    reader = FeatureReader(net.eval(), IMAGES)
    with torch.inference_mode(), reader.reading(reader.layers) as read:
        with torch.autocast("cpu", torch.bfloat16):  # whose nearest value is above float16's last
            net(IMAGES)
        found = read()[CLASSIFIER]
    assert np.isfinite(found).all()
    assert np.abs(found).max() == np.finfo(np.float16).max


def test_batches_are_joined_by_layer():
    one, two = np.ones((2, 3), np.float16), np.zeros((1, 3), np.float16)
    assert concatenate([{"1": one}, {"1": two}])["1"].shape == (3, 3)
    assert concatenate([{}, {}]) == {}
