"""``load_dataset``: any source of labelled pictures by what its name looks like."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from clip_adapter.datasets.catalog import benchmark_names, get_benchmark, known_benchmark
from clip_adapter.datasets.class_names import ClassNames
from clip_adapter.datasets.coop import find_folder, load_benchmark, load_coop
from clip_adapter.datasets.dataset import Dataset
from clip_adapter.datasets.folder import LAYOUTS, load_folder
from clip_adapter.datasets.hub import load_hub
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.table import load_table
from clip_adapter.datasets.templates import resolve_templates
from clip_adapter.errors import DataError, UsageError, near_names
from clip_adapter.paths import SHARDED, check_exists, did_you_mean
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


def load_dataset(
    spec: str | Path,
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
    dataset = _read(str(spec), root, class_names)
    dataset.templates = templates or dataset.templates
    return dataset


def check_source(spec: str | Path, root: str | Path | None = None) -> None:
    """Check that there is something at ``spec`` that can be a source, before it is opened.

    Raises:
        UsageError: it is of no form of :data:`FORMS`.
        DataError: it does not exist, or ``root`` does not.
    """
    spec = str(spec)
    if not spec:
        raise UsageError("The name of the data is empty.", allowed=FORMS)
    if spec.startswith("hub:"):
        return
    path, features = Path(os.path.expanduser(spec)), is_feature_spec(spec)
    if features and not path.exists() and "#" in spec:
        path = Path(os.path.expanduser(spec.rpartition("#")[0]))
    name = named_benchmark(spec, root)
    if name and root is None:
        raise UsageError(
            f"{spec} is a known data set; say where it lies with --root.",
            allowed=f"--root with the folder that holds it; {', '.join(benchmark_names())}",
            hint=f"--root DIR; 'clip-adapter data get {name} --root DIR' brings it there.",
        )
    if name is None and not path.exists():
        # Beside a root, what is no path is the name of a data set.
        named = root is not None and _NAME.fullmatch(spec)
        guess = near_names(spec, benchmark_names()) if named else ""
        raise DataError(
            f"{shown(path)} does not exist.{guess or did_you_mean(path)}",
            allowed=FORMS,
            hint="Check the path; names count by case.",
        )
    if not (name or features or path.is_dir() or path.suffix.lower() in _BY_ENDING):
        raise UsageError(
            f"{shown(path)} is no source of labelled pictures.",
            allowed=FORMS,
            hint=conversion(path),
        )
    if name and root is not None:
        find_folder(get_benchmark(name), root)
    elif root is not None and takes_root(spec, root):
        check_exists(root, "The folder")


def _read(spec: str, root: str | Path | None, class_names: ClassNames | None) -> Dataset:
    if spec.startswith("hub:"):
        return load_hub(spec, class_names)
    if is_feature_spec(spec):
        raise UsageError(
            f"{spec} holds features, and pictures are needed here.",
            allowed=PICTURE_FORMS,
            hint="clip_adapter.load_features reads features. For 'bench run', put the file into a "
            "folder, and name that: --features DIR.",
        )
    check_source(spec, root)
    path = Path(os.path.expanduser(spec))
    if root is not None and (name := named_benchmark(spec, root)):
        return load_benchmark(name, root, class_names)
    if path.is_dir():
        return load_folder(path, class_names)
    return _BY_ENDING[path.suffix.lower()](path, root, class_names)


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


def named_benchmark(spec: str | Path, root: str | Path | None) -> str | None:
    """The data set of the paper that ``spec`` names, or None.

    A file or folder of that name comes first, unless ``root`` says where the set lies: with a
    folder, ``root`` would mean nothing.
    """
    # Nothing that looks like a path is a name.
    name = known_benchmark(str(spec)) if _NAME.fullmatch(str(spec)) else None
    path = Path(os.path.expanduser(spec))
    if name is None or path.is_file() or (root is None and path.exists()):
        return None
    return name


def takes_root(spec: str, root: str | Path | None) -> bool:
    """Whether ``root`` has a meaning beside ``spec``."""
    if spec.startswith("hub:"):
        return False
    return named_benchmark(spec, root) is not None or not Path(os.path.expanduser(spec)).is_dir()


def is_feature_spec(spec: str | Path) -> bool:
    """Whether ``spec`` names ready-made features: ``FILE[#SET]`` and not pictures.

    ``.safetensors`` and ``.npz`` always do, and a folder that ``clip-adapter scale embed`` wrote; a
    ``.parquet`` file where it has a list column called features or embedding.
    """
    file = str(spec)
    if file.startswith("hub:"):
        return False
    for name in (file, file.rpartition("#")[0]):
        if name and os.path.isfile(Path(os.path.expanduser(name)) / SHARDED):
            return True
        ending = Path(name).suffix.lower()
        if ending in (".safetensors", ".npz"):
            return not Path(name).is_dir()
        if ending == ".parquet":
            return _has_feature_column(os.path.expanduser(name))
    return False


def _has_feature_column(path: str) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    # Not there, or damaged: whoever opens it says so.
    except (OSError, pa.ArrowException):
        return False
    lists = pa.ListType | pa.LargeListType | pa.FixedSizeListType
    return any(field.name in _FEATURE_COLUMNS and isinstance(field.type, lists) for field in schema)
