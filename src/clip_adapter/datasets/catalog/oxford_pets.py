"""OxfordPets: 37 breeds of cats and dogs."""

from clip_adapter.datasets.catalog.base import Archive, Benchmark, SideFile

RECORD = Benchmark(
    name="oxford_pets",
    title="OxfordPets",
    classes=37,
    sizes={"train": 2944, "val": 736, "test": 3669},
    folder="oxford_pets",
    licence="CC BY-SA 4.0",
    citation="Parkhi et al., Cats and Dogs, CVPR 2012",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    order=3,
    template="a photo of a {}, a type of pet.",
    aliases=("oxfordiiitpet",),
    images=("images",),
    side_file=SideFile(
        "split_zhou_OxfordPets.json",
        drive="1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
        digest="fbb12e86a2462a066ade4063b6b8bc90548b6a972765e496b8f628348d8e2b07",
    ),
    # A few pictures have no annotation, and so no place in any split.
    has_unused=True,
    archives=(
        Archive(
            "images.tar.gz",
            {"images/": "oxford_pets/images/"},
            url="https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
            size=791_918_971,
            md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        ),
    ),
)
