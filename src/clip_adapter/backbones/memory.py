"""What fits into memory: a batch size that halves itself, and frozen encoders that use it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clip_adapter.backbones.base import Backbone
from clip_adapter.errors import BackboneError
from clip_adapter.reporting import log
from clip_adapter.threads import SMALL, suited_threads

FORWARD_BATCH = 256  # rows per forward pass at most; callers with smaller batches keep theirs
# Parameters above which one row alone is much work: each is used for dozens of patches or tokens.
_COUNTED = SMALL // 10
_LARGE_CARD = 40e9  # bytes of memory of a GPU that larger batches suit
# Bytes of what a layer returns on a CPU: of 32 MiB and more, glibc takes new memory from the
# system each time, and clearing its pages takes long. One picture may have more.
_LARGEST_RESULT = 28 * 2**20


def batch_for(device: str) -> int:
    """Pictures that are encoded at once on a device, if nothing else is asked for."""
    if not (device.startswith("cuda") and torch.cuda.is_available()):
        return 64
    large = torch.cuda.get_device_properties(device).total_memory >= _LARGE_CARD
    return 512 if large else 256


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine has no memory left."""
    signs = ("out of memory", "can't allocate memory", "cannot allocate")
    said = any(sign in str(error).lower() for sign in signs)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said)


def total_memory(device: str) -> int | None:
    """Bytes of memory of a device, or of the machine; None where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return None


class Halving:
    """Runs a function over a batch in parts of at most ``size`` rows.

    Out of memory, the size is halved, this is said, and the work goes on; the smaller size is
    kept for later batches.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, function: Callable[[Any], Tensor], batch: Tensor | Sequence[Any]) -> Tensor:
        """``function`` of every part of ``batch`` (B, ...), joined along the first dimension.

        Raises:
            BackboneError: memory runs out with a single row.
        """
        while True:
            used = min(self.size, max(len(batch), 1))
            try:
                starts = range(0, max(len(batch), 1), used)
                return torch.cat([function(batch[i : i + used]) for i in starts])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if used == 1:
                    raise BackboneError(
                        "Memory runs out with a single picture or text in the batch.",
                        hint="Take a smaller backbone, dtype float16 on a GPU, or device cpu.",
                    ) from error
            # outside of the handler: the error's frames hold the tensors that must go
            self.size = used // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.info(f"Out of memory with a batch of {used}: going on with {self.size}.")


@contextlib.contextmanager
def _sizes_of_results(model: nn.Module) -> Iterator[list[int]]:
    """Bytes of what the layers of ``model`` return inside; what they merge of weights is not."""
    sizes: list[int] = []

    def look(module: nn.Module, inputs: Any, result: Any) -> None:
        if isinstance(result, Tensor):
            sizes.append(result.nbytes)

    # Compiled parts take no hook; of them what the layers around return is counted.
    parts = (p for p in model.modules() if not isinstance(p, torch.jit.ScriptModule))
    handles = [part.register_forward_hook(look) for part in parts]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


class FrozenEncoder(Backbone):
    """What all backbones share: raw features in float32, in parts that memory holds.

    They are where the pictures are: of pictures on a GPU they stay there, and nothing waits.
    """

    parameters: int
    model: Any = None
    """The torch module that encodes, where its work may be counted."""
    runtime: str = "torch"
    """What computes the picture tower."""

    def __init__(self, blank: Tensor | None = None) -> None:
        """Run a first picture ``blank`` (3, H, W) through the tower; None is a black one."""
        self._texts = Halving(max(FORWARD_BATCH, batch_for(self.device)))
        self._pictures = Halving(self._texts.size)
        self._row_work: dict[bool, int | None] = {}
        size = self.preprocess.image_size
        first = torch.zeros(1, 3, size, size) if blank is None else blank[None]
        with _sizes_of_results(self.model or nn.Module()) as sizes:
            self.embed_dim = int(self.encode_images(first).shape[1])
        if self.device == "cpu" and sizes:
            rows = max(1, _LARGEST_RESULT // max(1, *sizes))
            self._pictures.size = min(self._pictures.size, 1 << (rows.bit_length() - 1))

    @property
    def pictures_at_once(self) -> int:
        """How many pictures the tower takes at once at most; a batch of more goes in parts."""
        return self._pictures.size

    def _frozen(self, encode: Callable[[Any], Tensor], batch: Tensor | list[str]) -> Tensor:
        """``encode`` of every part of ``batch``: (B, D), without gradients."""
        place = batch.device if isinstance(batch, Tensor) else "cpu"
        if not len(batch):
            return torch.zeros(0, self.embed_dim, device=place)

        def forward(part: Any) -> Tensor:
            return encode(part).to(place, torch.float32)

        batches = self._pictures if _are_pictures(batch) else self._texts
        with torch.inference_mode(), suited_threads(self._work(forward, batch, batches.size)):
            features = batches.run(forward, batch)
        # An ordinary tensor: inference tensors cannot enter a later training.
        return features.clone()

    def _work(
        self, forward: Callable[[Any], Tensor], batch: Tensor | list[str], most: int
    ) -> int | None:
        """Multiply-adds of encoding ``batch``, ``most`` at once; None are many, or unknown.

        They are counted once, on a first row, for the small towers alone.
        """
        if self.model is None or self.parameters > _COUNTED:
            return None
        pictures = _are_pictures(batch)
        if pictures not in self._row_work:
            from torch.utils.flop_counter import FlopCounterMode

            with suited_threads(0), FlopCounterMode(display=False) as counter:
                forward(batch[:1])
            self._row_work[pictures] = counter.get_total_flops() // 2 or None
        work = self._row_work[pictures]
        return work and work * min(len(batch), most)

    def _refuse_prompts(self, *args: Any, **kwargs: Any) -> Any:
        """Stop methods that learn prompts, which enter a text tower as token embeddings."""
        raise BackboneError(
            f"The backbone {self.name} takes no token embeddings.",
            allowed="backbones with a CLIP text transformer, as RN50/openai",
            hint="Learnt prompts need another backbone; other methods work with this one.",
        )

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, sizes, device and dtype, for results and logs."""
        names = ("name", "fingerprint", "embed_dim", "logit_scale", "parameters", "device", "dtype")
        size = {"image_size": self.preprocess.image_size}
        return {name: getattr(self, name) for name in names} | size


def _are_pictures(batch: Tensor | list[str]) -> bool:
    return isinstance(batch, Tensor) and batch.ndim == 4
