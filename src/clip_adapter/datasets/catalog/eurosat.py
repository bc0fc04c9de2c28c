"""EuroSAT: 10 kinds of land seen by Sentinel-2. CoOp rewrites the class names."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="eurosat",
    title="EuroSAT",
    classes=10,
    sizes={"train": 13_500, "val": 5400, "test": 8100},
    folder="eurosat",
    licence="MIT",
    citation="Helber et al., EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use "
    "and Land Cover Classification, arXiv 1709.00029",
    homepage="https://github.com/phelber/EuroSAT",
    order=10,
    template="a centered satellite photo of {}.",
    images=("2750",),
    side_file=SideFile(
        "split_zhou_EuroSAT.json",
        drive="1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
        digest="3c417b259c8aff68d9dbf47142524b3ee641419d6d6d2a313d650b5af8d1110e",
    ),
    archives=(
        # The file that CoOp took from madm.dfki.de, by its md5; that host often fails.
        Archive(
            "EuroSAT.zip",
            {"2750/": "eurosat/2750/"},
            url="https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            size=94_280_567,
            md5="c8fa014336c82ac7804f0398fcb19387",
        ),
    ),
)
