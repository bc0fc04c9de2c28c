"""Where something can be put into a visual tower of open_clip: its blocks, its stages, its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from clip_adapter.errors import BackboneError, UsageError

STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Place:
    """A point of a tower's forward pass, for a hook.

    Attributes:
        module: what runs there.
        before: on its first input instead of its output.
        channels_first: the tensor there is (B, channels, H, W); else its last dimension counts.
        dim: channels of the tensor there, or None where the tower does not tell.
    """

    module: nn.Module
    before: bool = False
    channels_first: bool = False
    dim: int | None = None


def places(visual: nn.Module) -> list[Place]:
    """The places of ``visual`` by number; the last one is its end, the output feature (B, D).

    A transformer of n blocks: 0 is on the tokens before block 1, i is after block i, n is the end
    (Gao et al., Table 2, where n = 12). A ResNet: 0 is after the stem, 1 to 4 after the stages, 5
    the end. Other towers have their end alone.
    """
    tower: Any = visual
    end = Place(visual, dim=getattr(visual, "output_dim", None))
    blocks = blocks_of(visual)
    if blocks:
        width = width_of(visual)
        inner = [Place(block, dim=width) for block in blocks[:-1]]
        return [Place(blocks[0], before=True, dim=width), *inner, end]
    if all(hasattr(visual, name) for name in (*STAGES, "attnpool", "avgpool")):
        stages = [getattr(tower, name) for name in STAGES]
        channels = [int(convolution.out_channels) for convolution in _last_convolutions(tower)]
        inner = zip([tower.avgpool, *stages], channels, strict=True)
        return [*(Place(m, channels_first=True, dim=c) for m, c in inner), end]
    return [end]


def _last_convolutions(tower: Any) -> list[Any]:
    """Those of the stem and of the four stages of a ResNet."""
    return [tower.conv3, *(getattr(tower, name)[-1].conv3 for name in STAGES)]


def blocks_of(visual: nn.Module) -> list[nn.Module]:
    """The transformer blocks of ``visual``, in order; none where it is no vision transformer."""
    return list(getattr(getattr(visual, "transformer", None), "resblocks", ()))


def width_of(visual: nn.Module) -> int:
    """W, the size of the tokens of a vision transformer."""
    return int(cast("Any", visual).transformer.width)


def transformer_blocks(visual: nn.Module, what: str) -> list[nn.Module]:
    """The transformer blocks of ``visual``, for ``what`` is put into them.

    Raises:
        BackboneError: the tower is no vision transformer of open_clip.
    """
    blocks = blocks_of(visual)
    if not blocks:
        raise BackboneError(
            f"{what} goes into the blocks of a vision transformer, and this visual tower "
            f"({type(visual).__name__}) has none.",
            allowed="vision transformers of open_clip, such as ViT-B-32/openai or ViT-B-16/openai",
            hint="Take one of them, or clip-adapter-inside, which also fits ResNets.",
        )
    return blocks


def numbers(
    option: str, given: int | str, allowed: Sequence[int], words: Mapping[str, Sequence[int]]
) -> list[int]:
    """The numbers that the value of an option stands for, sorted, each once.

    Args:
        option: its name.
        given: a number, a word, or several with commas between them: 2, "all", "0,6,end".
        allowed: the numbers that there are.
        words: what each word stands for.

    Raises:
        UsageError: anything else; the allowed numbers are named.
    """
    found: set[int] = set()
    for part in str(given).split(","):
        word = part.strip()
        if word in words:
            found.update(words[word])
        elif word.isdecimal() and int(word) in allowed:
            found.add(int(word))
        else:
            raise UsageError(
                f"{option} = {given!r}.",
                allowed=f"{', '.join(words)}, or numbers of {', '.join(map(str, allowed))} with "
                "commas between them",
            )
    return sorted(found)
