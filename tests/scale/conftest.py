import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

LABELS = ["red", "green", "blue"]


@pytest.fixture(scope="session")
def backbone():
    from clip_adapter.backbones import load_backbone

    return load_backbone("demo", device="cpu")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Nine pictures in three class folders, and one that is broken."""
    root = tmp_path_factory.mktemp("shards") / "photos"
    for i in range(9):
        path = root / LABELS[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (root / "red" / "broken.jpg").write_text("no picture")
    return root


@pytest.fixture(scope="session")
def expected(backbone, photos):
    """Features by content digest, of the plain way."""
    from clip_adapter.datasets.dataset import Sample
    from clip_adapter.features.embed import embed

    samples = [Sample(p.name, -1, p) for p in sorted(photos.rglob("*.png"))]
    features, _ = embed(backbone, samples, [])
    return dict(zip(features.digests, features.plain_view, strict=True))


def relative(photos):
    return [p.relative_to(photos).as_posix() for p in sorted(photos.glob("*/*"))]


def as_list(photos, target):
    (target / "all.txt").write_text("\n".join(str(photos / name) for name in relative(photos)))
    return target / "all.txt"


def tar_of(photos, target, name="all.tar"):
    with tarfile.open(target / name, "w") as tar:
        for path in relative(photos):
            label = path.split("/")[0].encode()
            for member, data in (
                (path, (photos / path).read_bytes()),
                (path.rpartition(".")[0] + ".cls", label),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return target / name


def as_parquet_of_paths(photos, target):
    names = relative(photos)
    table = {"path": [str(photos / name) for name in names]}
    table["label"] = [name.split("/")[0] for name in names]
    pq.write_table(pa.table(table), target / "paths.parquet")
    return target / "paths.parquet"


def as_parquet_of_bytes(photos, target):
    names = relative(photos)
    rows = [{"bytes": (photos / name).read_bytes(), "path": name} for name in names]
    labels = [name.split("/")[0] for name in names]
    pq.write_table(pa.table({"image": rows, "label": labels}), target / "bytes.parquet")
    return target / "bytes.parquet"


FORMS = {
    "list": as_list,
    "tar": tar_of,
    "paths": as_parquet_of_paths,
    "bytes": as_parquet_of_bytes,
}


@pytest.fixture(params=[*FORMS, "folder"])
def source(request, photos, tmp_path):
    """The pictures in one of the forms that they come in."""
    return photos if request.param == "folder" else FORMS[request.param](photos, tmp_path)


@pytest.fixture
def as_tar():
    return tar_of
