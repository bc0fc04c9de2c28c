"""``Sizes``: what decides how many parameters a method trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """A task and a backbone, by their sizes.

    Attributes:
        dim: D.
        classes: C.
        shots: K pictures of every class; where classes have fewer, methods that train a number
            per picture train fewer than is counted.
        trunk: features before CLIP's projection: the width of a vision transformer, or the
            channels of a ResNet's last stage.
        blocks: transformer blocks of the visual tower; 0 for a ResNet.
        stages: channels after the stem and the four stages of a ResNet; () for a transformer.
        text_width: W of the text tower.
        text_blocks: its transformer blocks.
        visual_parameters: numbers in the visual tower.
        text_parameters: numbers in the text tower, the token table and the projection included.
    """

    dim: int
    classes: int
    shots: int
    trunk: int = 0
    blocks: int = 0
    stages: tuple[int, ...] = ()
    text_width: int = 0
    text_blocks: int = 0
    visual_parameters: int = 0
    text_parameters: int = 0


# ImageNet with 16 shots, as in the tables of the paper; the towers are those of OpenAI's models.
VIT_B_16 = Sizes(
    dim=512,
    classes=1000,
    shots=16,
    trunk=768,
    blocks=12,
    text_width=512,
    text_blocks=12,
    visual_parameters=86_192_640,
    text_parameters=63_428_096,
)
RN50 = Sizes(
    dim=1024,
    classes=1000,
    shots=16,
    trunk=2048,
    stages=(64, 256, 512, 1024, 2048),
    text_width=512,
    text_blocks=12,
    visual_parameters=38_316_896,
    text_parameters=63_690_240,
)
