"""What the user named as data, told apart once (``DataSpec``), and opened by ``load_dataset``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clip_adapter.datasets.catalog import benchmark_names, get_benchmark, known_benchmark
from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.datasets.coop import find_folder, load_benchmark, load_coop
from clip_adapter.datasets.dataset import Dataset
from clip_adapter.datasets.folder import LAYOUTS, ONE_FOLDER_EACH, load_folder
from clip_adapter.datasets.hub import load_hub
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.table import load_table
from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.datasets.walk import PICTURE_SUFFIXES
from clip_adapter.errors import DataError, UsageError
from clip_adapter.paths import (
    ARCHIVES,
    DOWNLOAD,
    NOT_FETCHED,
    SHARDED,
    UNPACK,
    check_exists,
    did_you_mean,
    is_remote,
)
from clip_adapter.wording import shown

PICTURE_FORMS = (
    f"a folder ({LAYOUTS}); a .csv, .tsv or .parquet table with path,label[,split]; "
    "a split_zhou_*.json of CoOp; hub:NAME[@REVISION][:CONFIG]; "
    "a data set of the paper by its name, with --root"
)
FORMS = (
    f"{PICTURE_FORMS}; features in a .safetensors, .npz or .parquet file, with #SET for one set in "
    "it"
)
_NAME = re.compile(r"[\w-]+")
_BY_ENDING = {
    ".csv": load_table,
    ".tsv": load_table,
    ".parquet": load_table,
    ".json": load_coop,
}
_SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
_FEATURE_COLUMNS = ("features", "embedding")


@dataclass(frozen=True)
class DataSpec:
    """What the user named as data, told apart before it is opened.

    Attributes:
        text: as it was written, to show.
        kind: what it is, see :data:`FORMS`.
        path: the file or folder; of a "benchmark" where it lies.
        name: of a "benchmark" the name of its record; of "features" the set after the ``#``.
    """

    text: str
    kind: Literal["features", "folder", "table", "benchmark", "hub"]
    path: Path = Path()
    name: str | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def takes_root(self) -> bool:
        """Whether a root has a meaning beside it."""
        return self.kind in ("table", "benchmark")

    def check_there(self, others: Iterable[str] = ()) -> None:
        """Check that its file or folder is there; ``others`` are names that may have been meant.

        Raises:
            DataError: it is not; the nearest names are said.
        """
        if not os.path.exists(self.path):
            if is_remote(self.text):
                raise DataError(f"{self.text} is {NOT_FETCHED}.", hint=DOWNLOAD)
            raise DataError(
                f"{shown(self.path)} does not exist.{did_you_mean(self.path, others)}",
                allowed=FORMS,
                hint="Check the path; names count by case.",
            )


def parse_spec(data: str | Path | DataSpec, root: str | Path | None = None) -> DataSpec:
    """What ``data`` names, once there is something there that can be a source.

    A file or folder comes before a data set of the paper of that name, unless ``root`` says where
    the set lies: with a folder, ``root`` would mean nothing.

    Raises:
        UsageError: it is of no form of :data:`FORMS`.
        DataError: it does not exist, or ``root`` does not, or the data set is not in there.
    """
    if isinstance(data, DataSpec):
        return data
    if not isinstance(data, str | Path):
        raise UsageError(
            f"The data is given as {type(data).__name__}.",
            allowed="a path, or the name of a data set",
            hint="Put pictures into one folder per class, features into a file.",
        )
    text = str(data)
    if not text:
        raise UsageError("The name of the data is empty.", allowed=FORMS)
    if text.startswith("hub:"):
        return DataSpec(text, "hub")
    path = Path(os.path.expanduser(text))
    # Nothing that looks like a path is a name.
    named = _NAME.fullmatch(text) and not os.path.isfile(path)
    benchmark = known_benchmark(text) if named else None
    if benchmark and root is not None:
        find_folder(get_benchmark(benchmark), root)
        return DataSpec(text, "benchmark", Path(root), benchmark)
    if benchmark and not os.path.exists(path):
        raise UsageError(
            f"{text} is a known data set; say where it lies with --root.",
            allowed=f"--root with the folder that holds it; {', '.join(benchmark_names())}",
            hint=f"--root DIR; 'clip-adapter data get {benchmark} --root DIR' brings it there.",
        )
    spec = feature_spec(text) or DataSpec(text, "folder" if os.path.isdir(path) else "table", path)
    # Beside a root, what is no path is the name of a data set.
    spec.check_there(benchmark_names() if named and root is not None else ())
    ending = path.suffix.lower()
    if spec.kind == "table" and ending not in _BY_ENDING:
        hint = UNPACK if ending in ARCHIVES else conversion(path)
        if ending in PICTURE_SUFFIXES:
            hint = f"Name a folder. {ONE_FOLDER_EACH}: photos/cat/1.jpg, photos/dog/7.jpg."
        raise UsageError(
            f"{shown(path)} is no source of labelled pictures.",
            allowed=FORMS,
            hint=hint,
        )
    if spec.kind == "table" and root is not None:
        check_exists(root, "The folder")
    return spec


def feature_spec(data: str | Path) -> DataSpec | None:
    """``FILE[#SET]`` of ready-made features, there or not; None for anything else.

    ``.safetensors`` and ``.npz`` always hold features, and a folder that ``clip-adapter scale
    embed`` wrote; a ``.parquet`` file where it has a list column called features or embedding.
    """
    path, name = file_and_set(data)
    ending = path.suffix.lower()
    if (
        os.path.isfile(path / SHARDED)
        or (ending in (".safetensors", ".npz") and not os.path.isdir(path))
        or (ending == ".parquet" and _has_feature_column(path))
    ) and not str(data).startswith("hub:"):
        return DataSpec(str(data), "features", path, name)
    return None


def file_and_set(data: str | Path) -> tuple[Path, str | None]:
    """The file, and the set in it that a ``#`` names, if any; a file may have a # in its name."""
    whole = os.path.expanduser(str(data))
    file, _, name = whole.rpartition("#")
    return (Path(file), name) if file and not os.path.exists(whole) else (Path(whole), None)


def load_dataset(
    spec: str | Path | DataSpec,
    *,
    root: str | Path | None = None,
    class_names: ClassNames | None = None,
    prompts: Sequence[str] | None = None,
) -> Dataset:
    """Labelled pictures from a folder, a table, a split file of CoOp, the hub, or a known name.

    Args:
        spec: the source, see :data:`FORMS`.
        root: the folder that the paths of a table or split file start from, or that holds the
            data set that is named.
        class_names: names for the prompts: a file, {label: name}, or names in label order.
        prompts: templates or names of built-in ones; None picks those of the data set by its
            name.

    Raises:
        UsageError: ``spec`` is of no such form, or ``class_names`` or ``prompts`` do not fit.
        DataError: the source cannot be read.
    """
    check_opening(str(spec))
    templates = resolve_templates(prompts) if prompts else None
    dataset = _read(parse_spec(spec, root), root, class_names)
    dataset.templates = templates or dataset.templates
    return dataset


def _read(spec: DataSpec, root: str | Path | None, class_names: ClassNames | None) -> Dataset:
    if spec.kind == "features":
        raise UsageError(
            f"{spec} holds features, and pictures are needed here.",
            allowed=PICTURE_FORMS,
            hint="clip_adapter.load_features reads features. For 'bench run', name the folder of "
            "such files, --features DIR; in a recipe, their names without the ending: "
            f'[profile.features] datasets = [{{ data = "{spec.path and spec.path.stem}", '
            'label = "..." }].',
        )
    if spec.kind == "hub":
        return load_hub(spec.text, class_names)
    if spec.kind == "benchmark" and spec.name:
        return load_benchmark(spec.name, spec.path, class_names)
    if spec.kind == "folder":
        return load_folder(spec.path, class_names)
    return _BY_ENDING[spec.path.suffix.lower()](spec.path, root, class_names)


def conversion(path: Path) -> str:
    """How to make a file that is never opened here usable: a sheet, a pickle, or one array.

    "" for a file of another kind.
    """
    if path.suffix.lower() in _SHEETS:
        return "Save the sheet as 'CSV UTF-8' (Excel: Save As), and give that file."
    target = f"{path.stem}.safetensors"
    ways = {
        (".pt", ".pth", ".bin"): "import torch; from safetensors.torch import save_file; "
        f"d = torch.load({path.name!r}, weights_only=True); save_file({{'features': "
        f"d['features'].float().contiguous(), 'labels': d['labels']}}, {target!r})",
        (".npy", ".pkl", ".pickle"): f"import numpy as np; X = np.load({path.name!r}); "
        f"np.savez({f'{path.stem}.npz'!r}, X=X, y=labels)",
    }
    way = next((way for endings, way in ways.items() if path.suffix.lower() in endings), "")
    return way and (
        f"If it holds features, convert it once: {way}. docs/features.md tells what the arrays may "
        "be called."
    )


def _has_feature_column(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    # Not there, or damaged: whoever opens it says so.
    except (OSError, pa.ArrowException):
        return False
    lists = pa.ListType | pa.LargeListType | pa.FixedSizeListType
    return any(field.name in _FEATURE_COLUMNS and isinstance(field.type, lists) for field in schema)
