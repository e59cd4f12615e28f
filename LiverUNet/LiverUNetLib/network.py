"""The network: a 2D U-Net of MONAI, described by a NetworkSpec."""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NetworkSpec", "build_network", "fold_batch_norm", "onnx_graph"]


@dataclass(frozen=True)
class NetworkSpec:
    """A 2D `monai.networks.nets.UNet` and a 1x1 convolution that gives one logit: "liver".

    MONAI's U-Net alone would pass its last features through one normalised, rectified channel; it
    then takes over a thousand steps before the logits of the background fall below zero.

    Attributes:
        in_channels: one for each context slice.
        channels: feature maps at each level; the first level comes after the first stride.
        strides: between the levels; one fewer than `channels`.
        features: feature maps at full resolution, before the 1x1 convolution.
        residual_units: convolutions in each block; 0 means a plain convolution.
        norm: "batch" or "instance".
    """

    in_channels: int = 5
    channels: tuple[int, ...] = (16, 32, 64, 128, 256, 256)
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)
    features: int = 8
    residual_units: int = 2
    kernel_size: int = 3
    norm: str = "batch"

    @property
    def multiple(self) -> int:
        """Rows and columns of an input must be multiples of this."""
        product = 1
        for stride in self.strides:
            product *= stride
        return product


def build_network(spec: NetworkSpec) -> nn.Module:
    """Make the network with fresh weights: (batch, in_channels, rows, columns) -> logits (batch, 1, rows, columns)."""
    from monai.networks.nets import UNet
    from torch import nn

    unet = UNet(
        spatial_dims=2,
        in_channels=spec.in_channels,
        out_channels=spec.features,
        channels=spec.channels,
        strides=spec.strides,
        kernel_size=spec.kernel_size,
        up_kernel_size=spec.kernel_size,
        num_res_units=spec.residual_units,
        act=("relu", {"inplace": True}),
        norm=spec.norm,
    )
    return nn.Sequential(unet, nn.Conv2d(spec.features, 1, kernel_size=1))


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold every batch normalisation into the convolution before it, for inference only.

    The logits stay the same up to rounding. Changes `network` in place and returns it.
    """
    from monai.networks.blocks import Convolution
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    network.eval()
    for block in network.modules():
        norm = getattr(getattr(block, "adn", None), "N", None)
        if isinstance(block, Convolution) and isinstance(norm, nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(block.conv, norm, transpose=block.is_transposed)
            block.adn.N = nn.Identity()
    return network


def onnx_graph(network: nn.Module, spec: NetworkSpec) -> bytes:
    """The network for inference as an ONNX graph: `slices`, any number and size of them, become `logits`.

    Kernels are stored as float16; ONNX Runtime makes them float32 when it loads the graph, folds
    batch normalisation into them, and computes in float32.
    """
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    class Widened(nn.Module):
        def forward(self, kernel: torch.Tensor) -> torch.Tensor:
            return kernel.float()

    network = copy.deepcopy(network).cpu().eval()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.weight = nn.Parameter(layer.weight.detach().half(), requires_grad=False)
            parametrize.register_parametrization(layer, "weight", Widened(), unsafe=True)
    file = io.BytesIO()
    free = {0: "slices", 2: "rows", 3: "columns"}
    with warnings.catch_warnings():
        # This exporter works with every torch since 2.4 and needs onnx alone; the new one needs onnxscript as well.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, spec.in_channels, spec.multiple, spec.multiple),),
            file,
            dynamo=False,
            opset_version=17,
            do_constant_folding=False,
            input_names=["slices"],
            output_names=["logits"],
            dynamic_axes={"slices": free, "logits": free},
        )
    return file.getvalue()
