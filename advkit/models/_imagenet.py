"""ImageNet's bottleneck nets: torchvision's, with the normalisation inside."""

from __future__ import annotations

from functools import cache

from torch import Tensor, nn

from advkit.models._blocks import Net, Statistics


@cache
def _bottleneck_net() -> type[nn.Module]:
    from torchvision.models.resnet import ResNet  # seconds to import

    class ImageNetResNet(Net, ResNet):  # type: ignore[misc]  # torchvision has no types
        """torchvision's net and key names, with `mean` and `std` beside them."""

        def forward(self, x: Tensor) -> Tensor:
            """Return logits (B, classes) of pixels (B, 3, H, W) in [0, 1]."""
            logits: Tensor = ResNet.forward(self, self.normalise(x))
            return logits

    return ImageNetResNet


def bottlenecks(classes: int, statistics: Statistics, base_width: int) -> nn.Module:
    """Return a 50-layer net whose inner 3×3 convolutions start at `base_width` channels.

    Source: torchvision's `resnet50` (64) and `wide_resnet50_2` (128), with their initialisation.
    """
    from torchvision.models.resnet import Bottleneck

    return _bottleneck_net()(
        statistics,
        block=Bottleneck,
        layers=[3, 4, 6, 3],
        num_classes=classes,
        width_per_group=base_width,
    )
