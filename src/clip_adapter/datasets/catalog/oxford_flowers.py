"""Flowers102: 102 flowers. CoOp's split is its own, half of the pictures for training."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="oxford_flowers",
    title="Flowers102",
    classes=102,
    sizes={"train": 4093, "val": 1633, "test": 2463},
    folder="oxford_flowers",
    licence="none seen; see the homepage",
    citation="Nilsback and Zisserman, Automated Flower Classification over a Large Number of "
    "Classes, ICVGIP 2008",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    order=5,
    template="a photo of a {}, a type of flower.",
    aliases=("flowers102", "oxfordflowers102"),
    images=("jpg",),
    side_file=SideFile(
        "split_zhou_OxfordFlowers.json",
        drive="1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
        digest="a93b5800cd8892ae98cfc3b9ec3b37ece80aa627b0b6197db46dfdbf99042df9",
    ),
    archives=(
        Archive(
            "102flowers.tgz",
            {"jpg/": "oxford_flowers/jpg/"},
            url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
            size=344_862_509,
            md5="52808999861908f626f3c1f4e79d11fa",
            sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        ),
    ),
)
