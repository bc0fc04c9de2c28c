"""Food101: 101 dishes."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="food101",
    title="Food101",
    classes=101,
    sizes={"train": 50_500, "val": 20_200, "test": 30_300},
    folder="food-101",
    licence="scientific fair use only; the pictures are Foodspotting's",
    citation="Bossard et al., Food-101: Mining Discriminative Components with Random Forests, "
    "ECCV 2014",
    homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    order=6,
    template="a photo of {}, a type of food.",
    images=("images",),
    side_file=SideFile("split_zhou_Food101.json", drive="1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
    archives=(
        Archive(
            "food-101.tar.gz",
            {"food-101/": "food-101/"},
            url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            size=4_996_278_331,
            md5="85eeb15f3717b99a5da872d97d918f87",
            sha256="d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
        ),
    ),
)
