"""I3D's parameters from its public files, with MAGVIT's names or those of pytorch-i3d."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from phenaki.errors import UserError
from phenaki.features.torch_names import unflatten

# pytorch-i3d's: ours.
UNITS = {
    "b0": "Branch_0.Conv3d_0a_1x1",
    "b1a": "Branch_1.Conv3d_0a_1x1",
    "b1b": "Branch_1.Conv3d_0b_3x3",
    "b2a": "Branch_2.Conv3d_0a_1x1",
    "b2b": "Branch_2.Conv3d_0b_3x3",
    "b3b": "Branch_3.Conv3d_0b_1x1",
    "logits": "Logits.Conv3d_0c_1x1",
}
ARRAYS = {
    "conv3d.weight": "conv_3d/kernel",
    "conv3d.bias": "conv_3d/bias",
    "bn.bias": "batch_norm/beta",
    "bn.running_mean": "batch_norm/moving_mean",
    "bn.running_var": "batch_norm/moving_variance",
}


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `I3D` from the tensors of a public file, whose names tell its kind.

    Either MAGVIT's Flax file, flattened with "/" ("params/Conv3d_1a_7x7/conv_3d/kernel"), or a
    file of pytorch-i3d's names ("Mixed_3b.b1a.conv3d.weight"), as TATS and VideoGPT converted the
    hub's weights. Raises UserError for a scale other than 1, which those weights do not have.
    """
    if "Conv3d_1a_7x7.conv3d.weight" not in tensors:
        return unflatten({name.removeprefix("params/"): value for name, value in tensors.items()})
    params = {}
    for name, value in tensors.items():
        unit, *array = name.rsplit(".", 2)
        kind = ".".join(array)
        if kind == "bn.weight" and not np.all(value == 1):
            raise UserError(
                f"{name} is not all ones: these are not the I3D weights FVD is defined by."
            )
        if kind not in ("bn.weight", "bn.num_batches_tracked"):
            parts = [UNITS.get(part, part) for part in unit.split(".")]
            path = "/".join([*parts, ARRAYS.get(kind, kind)])
            params[path] = value.transpose(2, 3, 4, 1, 0) if value.ndim == 5 else value
    return unflatten(params)
