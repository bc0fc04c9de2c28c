"""ImageNet: 1,000 classes. CoOp tests on its validation pictures and has no val split."""

from clip_adapter.datasets.catalog.base import IMAGENET_CLASSES, Benchmark, HubCopy

RECORD = Benchmark(
    name="imagenet",
    title="ImageNet",
    classes=1000,
    sizes={"train": 1_281_167, "val": 0, "test": 50_000},
    folder="imagenet",
    licence="non-commercial research and education, after registration",
    citation="Deng et al., ImageNet: A Large-Scale Hierarchical Image Database, CVPR 2009",
    homepage="https://image-net.org",
    order=1,
    aliases=("ilsvrc2012", "imagenet1k"),
    side_file=IMAGENET_CLASSES,
    split_folders={"train": "images/train", "test": "images/val"},
    per_class={"test": 50},
    hub=HubCopy("ILSVRC/imagenet-1k", splits={"train": "train", "val": "test"}, login=True),
    by_hand="Register at https://image-net.org, download ILSVRC2012_img_train.tar (147,897,477,120 "
    "bytes, md5 1d675b47d978889d74fa0da5fadfb00e) and ILSVRC2012_img_val.tar (6,744,924,160 "
    "bytes, md5 29b22e2961454d5413ddabcf34fc5622), and unpack them so that "
    "imagenet/images/train/ and imagenet/images/val/ hold one folder per class, n01440764 and so "
    "on. torchvision.datasets.ImageNet sorts the pictures into such folders.",
)
