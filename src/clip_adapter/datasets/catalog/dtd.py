"""DTD: 47 textures."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="dtd",
    title="DTD",
    classes=47,
    sizes={"train": 2820, "val": 1128, "test": 1692},
    folder="dtd",
    licence="for research purposes",
    citation="Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    order=9,
    template="{} texture.",
    aliases=("describabletextures",),
    images=("images",),
    side_file=SideFile(
        "split_zhou_DescribableTextures.json",
        drive="1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
        digest="460b9ea269753f33a1a5f348c87c27cb0c6c154e9991018006b86a2a16ed6331",
    ),
    archives=(
        # A plain tar, whatever its ending says.
        Archive(
            "dtd-r1.0.1.tar.gz",
            {"dtd/": "dtd/"},
            url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
            size=625_239_812,
            md5="fff73e5086ae6bdbea199a49dfb8a4c1",
            sha256="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        ),
    ),
)
