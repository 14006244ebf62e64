"""ResNets for small and large images, made of torchvision's residual blocks."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from orthounlearn.errors import UsageError

# depth -> (block, blocks per stage). 20/32/56: He et al. 2016, section 4.2 (three stages);
# 18/34/50: table 1 (four stages).
_DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    20: (BasicBlock, (3, 3, 3)),
    32: (BasicBlock, (5, 5, 5)),
    56: (BasicBlock, (9, 9, 9)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """Residual network (He et al., "Deep Residual Learning", arXiv 1512.03385).

    The stem follows the image size: 3×3 stride 1 up to 36 pixels (CIFAR, Fashion-MNIST, digits),
    3×3 stride 2 up to 96 (Tiny ImageNet, so that the stages see CIFAR's 32×32), and the
    7×7 stride 2 with max-pool of ImageNet above. Ends in global average pooling, so any image
    size runs through any stem.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, ...],
        *,
        width: int,
        num_classes: int,
        in_channels: int,
        image_size: int,
    ) -> None:
        super().__init__()
        self.stem = _stem(in_channels, width, image_size)
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            planes = width * 2**stage
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                stages.append(_block(block, channels, planes, stride))
                channels = planes * block.expansion
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W)."""
        features = self.pool(self.blocks(self.stem(images))).flatten(1)
        logits: Tensor = self.classifier(features)
        return logits


def _stem(in_channels: int, width: int, image_size: int) -> nn.Sequential:
    if image_size > 96:
        conv = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        pool: list[nn.Module] = [nn.MaxPool2d(3, stride=2, padding=1)]
    else:
        stride = 1 if image_size <= 36 else 2
        conv = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        pool = []
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True), *pool)


def _block(
    block: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, stride: int
) -> nn.Module:
    out = planes * block.expansion
    shortcut = None
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
        )
    module: nn.Module = block(channels, planes, stride, shortcut)
    return module


def resnet(
    *, depth: int, num_classes: int, in_channels: int = 3, image_size: int = 32, width: int = 64
) -> ResNet:
    """Build a ResNet of depth 18, 34, 50 (four stages) or 20, 32, 56 (three stages).

    Args:
        depth: Number of weighted layers.
        num_classes: Number of logits K.
        in_channels: 1 for grey, 3 for RGB.
        image_size: Height in pixels; chooses the stem.
        width: Channels of the first stage. 64 (or 16 for three stages) is the published size.

    Raises:
        UsageError: The depth is not one of those.
    """
    if depth not in _DEPTHS:
        raise UsageError(f"Expected a ResNet depth out of {sorted(_DEPTHS)}, but got {depth}.")
    if width < 1:
        raise UsageError(f"Expected a width of at least 1 channel, but got {width}.")
    block, blocks = _DEPTHS[depth]
    return ResNet(
        block,
        blocks,
        width=width,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
    )
