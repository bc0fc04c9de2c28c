"""UCF101: 101 actions, one frame from the middle of every video. CoOp splits CamelCase."""

from clip_adapter.datasets.catalog.base import DRIVE_DOWNLOAD, Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="ucf101",
    title="UCF101",
    classes=101,
    sizes={"train": 7639, "val": 1898, "test": 3783},
    folder="ucf101",
    licence="none seen; see the homepage",
    citation="Soomro et al., UCF101: A Dataset of 101 Human Actions Classes From Videos in The "
    "Wild, arXiv 1212.0402",
    homepage="https://www.crcv.ucf.edu/data/UCF101.php",
    order=11,
    template="a photo of a person doing {}.",
    images=("UCF-101-midframes",),
    side_file=SideFile(
        "split_zhou_UCF101.json",
        drive="1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
        digest="86e0d907236fc556f8cc9e07f6bd82285054fc83a82a3284fcbdd88a1db9e61e",
    ),
    archives=(
        # The frames that CoOp took out of the videos.
        Archive(
            "UCF-101-midframes.zip",
            {"UCF-101-midframes/": "ucf101/UCF-101-midframes/"},
            url=DRIVE_DOWNLOAD.format("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"),
        ),
    ),
)
