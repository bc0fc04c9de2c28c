"""CIFAR-100: 100 kinds of things in pictures of 32 x 32 pixels."""

from clip_adapter.datasets.catalog.base import Benchmark, HubCopy

RECORD = Benchmark(
    name="cifar100",
    title="CIFAR-100",
    classes=100,
    sizes={"train": 50_000, "val": 0, "test": 10_000},
    folder="cifar100",
    licence="none seen; see the homepage",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    order=21,
    split_folders={"train": "train", "test": "test"},
    hub=HubCopy("uoft-cs/cifar100", {"train": "train", "test": "test"}),
    by_hand="Its own archives hold Python pickles, which are not opened here. Pictures in folders "
    "train/CLASS/ and test/CLASS/ are read.",
)
