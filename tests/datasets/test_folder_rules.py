"""How a folder is read (docs/decisions/0009): what is not understood is told or refused."""

import os

import pytest

from clip_adapter.datasets.folder import load_folder
from clip_adapter.datasets.split_names import split_names
from clip_adapter.datasets.walk import Walk
from clip_adapter.errors import DataError, UsageError


def used(dataset):
    return {split: [one.name for one in samples] for split, samples in dataset.splits.items()}


@pytest.fixture
def lock(monkeypatch):
    """lock(folder): it cannot be listed, whoever runs the tests."""
    locked, scandir = set(), os.scandir

    def refusing(path):
        if os.fspath(path) in locked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return lambda folder: locked.add(os.fspath(folder))


LIKE_SPLITS = (
    "eval evaluation holdout hold-out held_out test1 test_set TestSet testset train_images "
    "training-data trainA valB train2017 x_train y_test image_test test_with_labels trainval "
    "val_split my_test train_full fold1 Fold_2 cv3 split-4 _train"
)
NO_SPLITS = (
    "train_station|bullet train|toy-train|test tube|contest|latest|devil|invalid|valve|trainer|"
    "tested|trains|strain|validator|pregnancy test|medieval|testa|crash-test dummy|fold|cat"
)


@pytest.mark.parametrize("name", LIKE_SPLITS.split())
def test_names_that_look_like_a_split(name):
    assert split_names(["cat", name]) == {name: ""}


@pytest.mark.parametrize("name", NO_SPLITS.split("|"))
def test_names_of_things(name):
    assert split_names(["cat", "dog", name]) == {}


@pytest.mark.parametrize("pair", [("cars_train", "cars_test"), ("segTrain", "segEval")])
def test_a_pair_that_differs_by_the_split_alone(pair):
    assert list(split_names([*pair, "seg_pred"])) == list(pair)
    assert split_names(pair[:1]) == {}


def test_a_very_long_name_is_judged_at_once():
    assert split_names(["train_" + "data1images_" * 20 + "!q"]) == {}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("train/a/1.png", "eval/a/2.png"), "'eval' is no split that is known"),
        (("train/a/1.png", "test1/a/2.png"), "'test1' is no split that is known"),
        (("train/a/1.png", "test/a/2.png", "test_set/a/3.png"), "'test_set' is no split"),
        (("cat/1.png", "dog/1.png", "holdout/2.png"), "beside them 'cat', 'dog'"),
        (("cat/1.png", "dog/1.png", "test/2.png"), "'test' is the split test"),
        (("cat/1.png", "val/cat/1.png"), "'val' is the split val"),
        (("train/cat/1.png", "train/dog/1.png", "bus/2.png"), "beside them 'bus'"),
        (("train/cat/1.png", "train/2.png", "bus/cat/2.png"), "beside them 'bus'"),
        (("train/cat/old/1.png", "train/2.png", "bus/2.png"), "beside them 'bus'"),
        (("test_images/cat/1.png", "test_images/dog/1.png"), "'test_images' is no split"),
        (("cars_train/a/1.png", "cars_test/a/1.png"), "'cars_test' is no split"),
        (("fold1/a/1.png", "fold2/a/2.png"), "'fold1' is no split"),
        (("train/a/1.png", "Train/b/1.png"), "'Train' is the split train; 'train' is the"),
        (("train/a/1.png", "val/a/2.png", "dev/a/3.png"), "'dev' is the split val"),
        (("in/one/train/a/1.png", "in/one/Eval/a/1.png"), "'Eval' is no split"),
        (("cat/train/1.png", "cat/test/2.png", "dog/1.png"), "'test' is the split test"),
        (("cat/1.png", "dog/old/Train/1.png", "dog/1.png"), "'Train' is the split train"),
        (("cat/1.png", "dog/1.png", "dog/test_set/1.png"), "'test_set' is no split"),
        (("train/cat/1.png", "train/test/2.png", "val/cat/1.png"), "'test' is the split test"),
        (("train/train/a/1.png", "test/test/a/1.png"), "'train' is the split train"),
    ],
)
def test_what_may_be_test_pictures_is_never_trained_on(put, files, words):
    with pytest.raises(UsageError, match="not sure") as caught:
        load_folder(put(*files))
    assert words in str(caught.value)
    assert "path,label,split" in caught.value.hint


def test_a_train_is_a_thing_too(put):
    root = put("train/train/1.png", "train/bus/1.png", "test/train/1.png", "test/bus/2.png")
    assert load_folder(root).class_names == ["bus", "train"]
    root = put("s/road/bus/1.png", "s/rail/train/1.png", "s/rail/tram/2.png") / "s"
    dataset = load_folder(root)
    assert dataset.class_names == ["rail", "road"]
    assert dataset.notes == [
        "3 pictures in folders below the class folders count for the class above "
        "('rail/train', 'rail/tram', 'road/bus')."
    ]


def test_a_stray_picture_in_a_split_is_left_out(put):
    root = put("train/a/1.png", "train/b/1.png", "train/stray.png", "test/a/2.png", "test/b/2.png")
    dataset = load_folder(root)
    assert used(dataset)["train"] == ["train/a/1.png", "train/b/1.png"]
    assert any("1 picture directly in" in note for note in dataset.notes)


def test_the_split_of_a_refused_layout_can_be_named_alone(put):
    root = put("train_images/a/1.png", "train_images/b/1.png", "eval/a/2.png")
    assert load_folder(root / "train_images").class_names == ["a", "b"]


def test_folders_beside_splits(put):
    root = put("train/a/1.png", "test/a/1.png", *(f"mask{i}/a/1.png" for i in range(7)))
    note = next(n for n in load_folder(root).notes if "Not train, val or test" in n)
    assert "7 folders left out" in note
    assert all(f"'mask{i}'" in note for i in range(7))
    root = put("one/train/a/1.png", "one/train/b/1.png", "one/docs/list.csv") / "one"
    dataset = load_folder(root)
    assert used(dataset) == {"train": ["train/a/1.png", "train/b/1.png"]}
    assert "'docs' (no pictures in it, so no class)" in dataset.notes[-1]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "hidden") for name in (".thumbnails", ".clip-adapter", ".ipynb_checkpoints")),
        *((name, "of the system") for name in ("@eaDir", "lost+found", "#recycle", "#snapshot")),
        *((name, "of the system") for name in ("$RECYCLE.BIN", "System Volume Information")),
        *((name, "of the system") for name in ("__MACOSX", "__pycache__", "FOUND.000")),
        *((name, "of clip-adapter") for name in ("_none", "_unsorted", "_quarantine")),
    ],
)
def test_folders_that_are_no_class_anywhere(put, name, why):
    root = put("train/a/1.png", "train/b/2.png", "test/a/3.png", f"{name}/1.png")
    put(f"train/{name}/4.png", f"train/a/{name}/x/5.png")
    dataset = load_folder(root)
    assert dataset.class_names == ["a", "b"]
    assert used(dataset) == {"train": ["train/a/1.png", "train/b/2.png"], "test": ["test/a/3.png"]}
    paths = f"'{name}', 'train/{name}', 'train/a/{name}'"
    assert f"Left out: {paths} ({why})." in dataset.notes
    # Whoever names such a folder means it.
    assert len(Walk(root / name).pictures()) == 1


def test_what_this_library_wrote_is_no_class(put):
    root = put("a/1.png", "b/1.png", "pets/classifier.json", "pets/weights.png", "plots/cm.png")
    put("plots/.clip-adapter-output", "b/runs/x/classifier.json", "b/runs/x/1.png")
    put("answers/all.csv", "answers/more.json", "figures/old/confusion.png", "empty/.DS_Store")
    drawn = b"\x89PNG\r\n\x1a\n....tEXtSoftware\0Matplotlib version3.10"
    for name in ("figures/old/confusion.png", "a/ratio-curve.png", "accuracy-by-shots.png"):
        put(name, data=drawn)
    put("a/confusion.png")
    dataset = load_folder(root)
    assert dataset.class_names == ["a", "b", "empty"]
    assert used(dataset) == {"all": ["a/1.png", "a/confusion.png", "b/1.png"]}
    assert dataset.notes == [
        "Class 'empty' has no pictures.",
        "2 files left out, not pictures by their ending (1 .csv, 1 .json).",
        "Left out: 'answers', 'figures' (no pictures in it, so no class); 'figures/old/"
        "confusion.png', 'accuracy-by-shots.png', 'pets', 'plots', 'a/ratio-curve.png' and 1 more "
        "(of clip-adapter); 'empty/.DS_Store' (hidden).",
    ]


def test_a_class_of_pictures_that_cannot_be_read_stays(put):
    dataset = load_folder(put("a/1.png", "b/1.psd", "b/2.PSD", "b/list.csv", "c/film.mp4"))
    assert dataset.class_names == ["a", "b", "c"]
    assert "2 classes have no pictures: 'b', 'c'." in dataset.notes
    assert any("(2 .psd, 1 .csv, 1 .mp4)" in note for note in dataset.notes)


@pytest.mark.parametrize("folder", ["cat", "train", "train/cat"])
def test_a_class_or_split_that_cannot_be_opened_ends_the_work(put, lock, folder):
    root = (
        put("cat/1.png", "dog/1.png")
        if folder == "cat"
        else put("train/cat/1.png", "test/cat/2.png")
    )
    lock(root / folder)
    with pytest.raises(DataError, match="cannot be listed: Permission denied") as caught:
        load_folder(root)
    assert f"{folder} " in caught.value.found


def test_a_folder_in_a_class_that_cannot_be_opened_is_told(put, lock):
    root = put("cat/1.png", "cat/more/2.png", "dog/1.png", "@eaDir/1.png")
    lock(root / "cat/more")
    lock(root / "@eaDir")
    dataset = load_folder(root)
    assert used(dataset) == {"all": ["cat/1.png", "dog/1.png"]}
    assert "Left out: '@eaDir' (of the system); 'cat/more' (cannot be opened)." in dataset.notes


def test_a_class_whose_link_leads_nowhere_ends_the_work(put):
    root = put("cat/1.png", "dog/1.png")
    (root / "cow").symlink_to(root / "not plugged in")
    with pytest.raises(DataError, match=r"cow is a link that leads nowhere"):
        load_folder(root)
    (root / "cow").unlink()
    (root / "cat" / "list").symlink_to(root / "gone")
    assert "'cat/list' (a link that leads nowhere)" in load_folder(root).notes[-1]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/dog", "train/cat"),
        ("train/dog/more", "train/cat"),
        ("train/ant/all", "train/cat"),
        ("train/dog/more", "test/cat"),
        ("train/dog/more", "test"),
        ("val", "test"),
    ],
)
def test_one_folder_never_counts_for_two_things(put, link, target):
    root = put("train/cat/1.png", "test/cat/2.png", "train/ant/1.png")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / target)
    with pytest.raises(UsageError, match="are one folder by a link"):
        load_folder(root)


@pytest.mark.parametrize("link", ["cat/all", "all", "cat/deep/er"])
@pytest.mark.parametrize("up", [0, 1])
def test_a_link_to_above_is_no_way_to_other_classes(put, link, up):
    root = put("set/cat/1.png", "set/dog/2.png", "set/cat/deep/3.png", "else.png") / "set"
    (root / link).symlink_to([root, root.parent][up])
    dataset = load_folder(root)
    assert used(dataset) == {"all": ["cat/1.png", "cat/deep/3.png", "dog/2.png"]}
    assert dataset.class_names == ["cat", "dog"]
    assert f"Left out: '{link}' (another way to a folder that is read)." in dataset.notes


def test_a_wrapper_that_holds_itself_ends(tmp_path):
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(DataError, match="no class folder"):
        load_folder(tmp_path)


def test_links_to_pipes_are_not_opened(put):
    root = put("a/1.png", "b/1.png")
    os.mkfifo(root / "pipe")
    (root / "a" / "2.png").symlink_to(root / "pipe")
    assert load_folder(root).notes == ["Left out: 'pipe', 'a/2.png' (a pipe or device)."]


def test_the_walk_without_classes(put, lock):
    root = put("b/2.png", "a.png", "train/1.png", "test/x/3.png", "_none/1.png", "c/4.psd", ".x")
    (root / "z").symlink_to(root / "b")
    lock(root / "test/x")
    walk = Walk(root)
    assert walk.pictures() == [root / "a.png", root / "b/2.png", root / "train/1.png"]
    assert walk.notes() == [
        "1 file left out, not pictures by their ending (1 .psd).",
        "Left out: '.x' (hidden); '_none' (of clip-adapter); 'test/x' (cannot be opened); "
        "'z' (another way to a folder that is read).",
    ]
