"""SUN397: 397 scenes. CoOp reverses the path that is a class's label."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="sun397",
    title="SUN397",
    classes=397,
    sizes={"train": 15_880, "val": 3970, "test": 19_850},
    folder="sun397",
    licence="none seen; see the homepage",
    citation="Xiao et al., SUN Database: Large-Scale Scene Recognition from Abbey to Zoo, "
    "CVPR 2010",
    homepage="https://vision.princeton.edu/projects/2010/SUN/",
    order=8,
    images=("SUN397",),
    side_file=SideFile("split_zhou_SUN397.json", drive="1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
    # The splits take 100 pictures of every class; most have more.
    has_unused=True,
    archives=(
        Archive(
            "SUN397.tar.gz",
            {"SUN397/": "sun397/SUN397/"},
            url="https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            size=39_077_296_924,
            md5="8ca2778205c41d23104230ba66911c7a",
            sha256="f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
        ),
    ),
)
