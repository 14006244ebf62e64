"""Backbones with a width and a stem for any image size; plain `nn.Module`s."""

from orthounlearn.models.resnet import resnet
from orthounlearn.models.vgg import vgg

__all__ = ["resnet", "vgg"]
