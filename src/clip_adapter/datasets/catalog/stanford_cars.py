"""StanfordCars: 196 models. CoOp writes the year first."""

from clip_adapter.datasets.catalog.base import Benchmark, HubCopy, SideFile


def rename(label: str) -> str:
    """``Audi TTS Coupe 2012`` as ``2012 Audi TTS Coupe``."""
    *words, year = label.split(" ")
    return " ".join([year, *words])


RECORD = Benchmark(
    name="stanford_cars",
    title="StanfordCars",
    classes=196,
    sizes={"train": 6509, "val": 1635, "test": 8041},
    folder="stanford_cars",
    licence="none seen; the homepage is gone",
    citation="Krause et al., 3D Object Representations for Fine-Grained Categorization, ICCV "
    "Workshop 2013",
    homepage="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    order=4,
    images=("cars_train", "cars_test"),
    side_file=SideFile(
        "split_zhou_StanfordCars.json",
        drive="1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
        digest="dcea0404a53aa64574091b79f3e076770f5bf0cff4cfcc50f69a2229c5e04bf5",
    ),
    hub=HubCopy("tanganke/stanford_cars", splits={"train": "train", "test": "test"}, rename=rename),
    by_hand="The authors' page no longer offers the pictures. Whoever has cars_train.tgz "
    "(979,269,282 bytes, sha256 "
    "512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288) and cars_test.tgz "
    "(977,350,468 bytes, sha256 "
    "bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243) unpacks them to "
    "stanford_cars/cars_train/ and stanford_cars/cars_test/. The copy on the hub has the same "
    "test split, but not CoOp's train and val.",
)
