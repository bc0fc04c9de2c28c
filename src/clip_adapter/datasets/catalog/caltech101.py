"""Caltech101: 100 kinds of objects. CoOp leaves out two folders and renames four."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="caltech101",
    title="Caltech101",
    classes=100,
    sizes={"train": 4128, "val": 1649, "test": 2465},
    folder="caltech-101",
    licence="none seen; see the homepage",
    citation="Fei-Fei et al., Learning Generative Visual Models from Few Training Examples, "
    "CVPR Workshop 2004",
    homepage="https://data.caltech.edu/records/mzrjq-6wc02",
    order=2,
    images=("101_ObjectCategories",),
    side_file=SideFile(
        "split_zhou_Caltech101.json",
        drive="1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
        digest="17c403faec919d379f39dc7d3b6c6ac6681a16d4bac38bf9f45b2fa97fc27b6f",
    ),
    left_out=("101_ObjectCategories/BACKGROUND_Google", "101_ObjectCategories/Faces_easy"),
    archives=(
        Archive(
            "caltech-101.zip",
            {"caltech-101/101_ObjectCategories.tar.gz": "downloads/101_ObjectCategories.tar.gz"},
            url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            size=137_414_764,
            md5="3138e1922a9193bfa496528edbbc45d0",
            sha256="331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91",
        ),
        Archive(
            "101_ObjectCategories.tar.gz",
            {"101_ObjectCategories/": "caltech-101/101_ObjectCategories/"},
        ),
    ),
)
