"""What the tests of training on pixels share: sizes, a schedule, and a stand-in for a method."""

import os
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from clip_adapter.finetuning.job import PixelSchedule
from clip_adapter.methods import Method

SIZE, D = 16, 6  # of the fixture's pictures and features
SCHEDULE = PixelSchedule("adamw", 3e-3, 0.01, 6, epochs=3)


@dataclass
class Some(Method):
    """A stand-in for a method: its name and options alone are looked at."""

    name: ClassVar[str] = "some"

    strength: float = 1.0

    def fit(self, task):
        raise NotImplementedError


class Dying(nn.Linear):
    """Ends its process, as where the machine kills it for want of memory."""

    def forward(self, input):  # noqa: A002 - torch's name
        print("last words", flush=True)
        os._exit(9)
