"""Training inside a backbone, on the pixels of the shots."""

from clip_adapter.finetuning.job import PixelSchedule
from clip_adapter.finetuning.train import fit_inside

__all__ = ["PixelSchedule", "fit_inside"]
