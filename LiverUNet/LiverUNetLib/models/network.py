"""Build networks: U-Nets of MONAI, described by a NetworkSpec."""

from __future__ import annotations

import copy
import io
import warnings
from typing import TYPE_CHECKING

from .spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build_network", "fold_batch_norm", "onnx_graph"]


def build_network(spec: NetworkSpec) -> nn.Module:
    """Build the network with random weights: (batch, in_channels, *sides) -> logits (batch, 1, *sides)."""
    from monai.networks.nets import UNet
    from torch import nn

    unet = UNet(
        spatial_dims=spec.spatial_dims,
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
    last = nn.Conv2d if spec.spatial_dims == 2 else nn.Conv3d
    return nn.Sequential(unet, last(spec.features, 1, kernel_size=1))


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold every batch normalization into the convolution before it, for inference.

    The logits stay the same up to rounding. `network` is changed in place and returned.
    """
    from monai.networks.blocks import Convolution
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    norms = (nn.BatchNorm2d, nn.BatchNorm3d)
    network.eval()
    for block in network.modules():
        parts = dict(block.named_modules())
        conv, norm = parts.get("conv"), parts.get("adn.N")
        if isinstance(block, Convolution) and isinstance(conv, convolutions) and isinstance(norm, norms):
            block.conv = fuse_conv_bn_eval(conv, norm, transpose=block.is_transposed)
            parts["adn"].N = nn.Identity()
    return network


def onnx_graph(network: nn.Module, spec: NetworkSpec) -> bytes:
    """The network for inference as an ONNX graph, from `image`, of any size, to `logits`.

    Kernels are stored as float16. When ONNX Runtime loads the graph, it converts them to float32, folds batch
    normalization into them, and computes in float32.
    """
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    class Widened(nn.Module):
        def forward(self, kernel: torch.Tensor) -> torch.Tensor:
            return kernel.float()

    network = copy.deepcopy(network).cpu().eval()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)):
            layer.weight = nn.Parameter(layer.weight.detach().half(), requires_grad=False)
            parametrize.register_parametrization(layer, "weight", Widened(), unsafe=True)
    file = io.BytesIO()
    free = {axis: f"side{axis}" for axis in (0, *range(2, 2 + spec.spatial_dims))}
    # Not the smallest image: its lowest level is one voxel, which instance normalization refuses.
    sides = [2 * spec.multiple] * spec.spatial_dims
    with warnings.catch_warnings():
        # This exporter works with every torch since 2.4 and needs only onnx; the new one also needs onnxscript.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        # The layers' tests of the image's size have the same result for all valid sizes.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        # Instance normalization always computes as in training.
        warnings.filterwarnings("ignore", message="ONNX export mode is set to TrainingMode.EVAL")
        torch.onnx.export(
            network,
            (torch.zeros(1, spec.in_channels, *sides),),
            file,  # type: ignore[arg-type]  # torch's annotations: this exporter also writes to file objects
            dynamo=False,
            opset_version=17,
            do_constant_folding=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": free, "logits": free},
        )
    return file.getvalue()
