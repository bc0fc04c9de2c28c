"""What other engines bring on a CPU: processor seconds in one thread, and how far off they are.

An engine is worth keeping from 1.3 times torch's speed on (torch's ratio to it: 0.77 or less), with
features nearer to torch's than 5 % of the median distance between two pictures. This needs
openvino, onnx and onnxruntime.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import openvino
import torch
from common import Table, arguments
from onnxruntime.quantization import QuantType, quantize_dynamic

from clip_adapter.backbones import load_backbone

BATCH = 8
NEAR = 0.05  # of the median distance between two pictures
BFLOAT16 = ("avx512_bf16", "amx_bf16")  # without one of them it is emulated, and slow


class Encoder(torch.nn.Module):
    """The visual tower as a function of pictures."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B, D)."""
        return self.model.encode_image(images)


def exported(model: Any, images: torch.Tensor, path: Path) -> str:
    """An ONNX file of the encoder, for any number of pictures."""
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    axes = {"images": {0: "batch"}}
    options: dict[str, Any] = {"input_names": ["images"], "dynamic_axes": axes, "dynamo": False}
    torch.onnx.export(Encoder(model).eval(), (images[:2],), path, opset_version=17, **options)
    torch.backends.mha.set_fastpath_enabled(True)
    return str(path)


def by_onnxruntime(file: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The file in ONNX Runtime, in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def engines(name: str, images: torch.Tensor, folder: Path) -> dict[str, Callable[[], Any]]:
    """What encodes ``images``, torch in float32 first."""
    model = load_backbone(name, device="cpu").model

    def plain() -> torch.Tensor:
        with torch.inference_mode():
            return model.encode_image(images)

    def bfloat16() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return plain()

    found: dict[str, Callable[[], Any]] = {"torch, float32": plain}
    info = Path("/proc/cpuinfo")
    if info.exists() and any(flag in info.read_text() for flag in BFLOAT16):
        found["torch, bfloat16"] = bfloat16
    file = exported(model, images, folder / "encoder.onnx")
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(file, "CPU", hints)
    found["OpenVINO, float32"] = lambda: torch.from_numpy(compiled(images.numpy())[0].copy())
    found["ONNX Runtime, float32"] = functools.partial(by_onnxruntime(file), images)
    if name.startswith("ViT"):
        small = str(folder / "int8.onnx")
        quantize_dynamic(
            file, small, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )
        found["ONNX Runtime, int8"] = functools.partial(by_onnxruntime(small), images)
    return found


def main() -> None:
    """Measure, and print."""
    options = arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    table = Table()
    for name in ("ViT-B-32/random", "RN50/random"):
        with tempfile.TemporaryDirectory() as folder:
            found = engines(name, images, Path(folder))
            rounds = 1 if options.small else options.rounds
            table.measure(f"{name}, one thread", BATCH, found, rounds, clock=time.process_time)
            exact, *others = ((engine, encode().float()) for engine, encode in found.items())
        apart = torch.pdist(exact[1]).median()
        for engine, features in others:
            off = float((features - exact[1]).norm(dim=-1).max() / apart)
            row = {"row": f"{name}, off torch in float32", "what": engine, "value": off}
            table.add(row | {"unit": "of the distance between two pictures", "most": NEAR})
    table.write(options.out)


if __name__ == "__main__":
    main()
