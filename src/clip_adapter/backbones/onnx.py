"""ONNX Runtime in place of torch, for the convolutional picture towers of CLIP on a CPU.

The tower is exported when it is loaded, which takes seconds, and nothing is kept of that.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from clip_adapter.backbones.catalog import catalog
from clip_adapter.backbones.open_clip import OpenClipBackbone
from clip_adapter.backbones.weights import Origin, model_config, reason_of
from clip_adapter.errors import BackboneError, MissingExtraError, UsageError

_HINT = "Leave --runtime away: torch runs every backbone."


def check_runtime(origin: Origin, device: str, dtype: str) -> None:
    """Check that ONNX Runtime is here, and quicker than torch with the tower of ``origin``.

    Args:
        origin: the backbone; the files of a hub repository are here.
        device: a resolved one.
        dtype: as ``device``.

    Raises:
        UsageError: another device, number format or kind of tower.
        MissingExtraError: it is not installed.
    """
    if device != "cpu" or dtype != "float32":
        raise UsageError(
            f"The runtime onnx with device {device} and dtype {dtype}.",
            allowed="device cpu with dtype float32",
            hint=f"Add --device cpu, or leave --runtime away: torch uses {device} and {dtype}.",
        )
    vision = (catalog().configs.get(origin.arch) or model_config(origin.identifier))["vision_cfg"]
    if not isinstance(vision.get("layers"), list):  # so open_clip tells them from others
        raise UsageError(
            f"{origin.name} with the runtime onnx: it is hardly quicker than torch with this kind "
            "of tower.",
            allowed="convolutional towers of CLIP: RN50, RN101, RN50x4, RN50x16, RN50x64",
            hint=_HINT,
        )
    for package in ("onnxruntime", "onnx"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx", "The runtime onnx") from error


class OnnxTower(nn.Module):
    """A picture tower that ONNX Runtime computes, in as many threads as torch has now.

    Args:
        visual: (B, 3, S, S) -> (B, D), on the CPU in float32.
        image_size: S.
    """

    def __init__(self, visual: nn.Module, image_size: int) -> None:
        super().__init__()
        ort: Any = importlib.import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait for work by spinning would be in the way of decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        blank = torch.zeros(2, 3, image_size, image_size)  # of one, the batch would be a constant
        names: dict[str, Any] = {
            "input_names": ["images"],
            "dynamic_axes": {"images": {0: "batch"}},
        }
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the two exporters, that by tracing is the older
            file = f"{folder}/tower.onnx"
            torch.onnx.export(visual, (blank,), file, opset_version=17, dynamo=False, **names)
            self._session: Any = ort.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D)."""
        return torch.from_numpy(self._session.run(None, {"images": images.numpy()})[0])


def on_onnx(backbone: OpenClipBackbone) -> OpenClipBackbone:
    """``backbone`` with its picture tower in ONNX Runtime; the text tower stays torch's.

    Raises:
        BackboneError: the tower cannot be exported.
    """
    try:
        tower = OnnxTower(backbone.model.visual, backbone.preprocess.image_size)
    except Exception as error:  # the exporter and the runtime raise errors of many kinds
        raise BackboneError(
            f"The picture tower of {backbone.name} cannot be run by ONNX Runtime: "
            f"{reason_of(error)}",
            hint=_HINT,
        ) from error
    other = backbone.with_visual(tower, backbone.fingerprint)
    other.runtime = "onnx"
    return other
