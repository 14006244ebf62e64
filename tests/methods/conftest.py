"""The networks that a method must be able to take apart."""

import pytest
import torch
from torch import nn

from orthounlearn.models import resnet, vgg
from tests.methods.toy import CLASSES


@pytest.fixture(params=[resnet, vgg])
def net(request: pytest.FixtureRequest) -> nn.Module:
    """A network of either kind as after training: no two channels alike, logits apart."""
    depth = {resnet: 20, vgg: 11}[request.param]
    made = request.param(depth=depth, num_classes=CLASSES, image_size=8, width=8)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
        made.classifier.weight.normal_(std=0.1)
        made.classifier.bias.normal_()
    return made.eval().to(memory_format=torch.channels_last)
