"""FGVC-Aircraft: 100 variants of aircraft, with its own lists for train, val and test."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark

RECORD = Benchmark(
    name="fgvc_aircraft",
    title="FGVCAircraft",
    classes=100,
    sizes={"train": 3334, "val": 3333, "test": 3333},
    folder="fgvc_aircraft",
    licence="non-commercial research only",
    citation="Maji et al., Fine-Grained Visual Classification of Aircraft, arXiv 1306.5151",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    order=7,
    template="a photo of a {}, a type of aircraft.",
    images=("images",),
    archives=(
        Archive(
            "fgvc-aircraft-2013b.tar.gz",
            {"fgvc-aircraft-2013b/data/": "fgvc_aircraft/"},
            url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
            "fgvc-aircraft-2013b.tar.gz",
        ),
    ),
)
