"""Readers of published sets, on miniature archives of the official layout."""

import dataclasses
import functools
import hashlib
import http.server
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import class_folders, picture

from compat.data import open_data, split
from compat.data.published import cifar10, cub200, omniglot, sop
from compat.errors import CompatError


def packed(monkeypatch: pytest.MonkeyPatch, module: Any, name: Any, root: Any, kind: Any) -> None:
    """Packs root/<folder>, removes it, and lets the module expect the new file's checksum."""
    archive = getattr(module, name)
    made = shutil.make_archive(str(root / "made"), kind, root, archive.folder)
    shutil.move(made, root / archive.file)
    shutil.rmtree(root / archive.folder)
    md5 = hashlib.md5((root / archive.file).read_bytes()).hexdigest()
    monkeypatch.setattr(module, name, dataclasses.replace(archive, md5=md5))


def test_omniglot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, alphabets in (("images_background", "AB"), ("images_evaluation", "C")):
        for alphabet in alphabets:
            class_folders(tmp_path / folder / alphabet, {"character01": 2, "character02": 2})
    packed(monkeypatch, omniglot, "BACKGROUND", tmp_path, "zip")
    packed(monkeypatch, omniglot, "EVALUATION", tmp_path, "zip")
    images = open_data(f"omniglot:root={tmp_path}")
    assert images.classes[:3] == ("A/character01", "A/character02", "B/character01")
    assert (images.split == "train").sum() == 8
    assert images.ids[-1] == "images_evaluation/C/character02/001.png"
    parts = split(images, val=0.5)
    assert set(images.labels[parts.test.queries].tolist()) == {4, 5}
    assert len(set(images.labels[parts.val.queries].tolist())) == 2
    again = open_data(images.spec)
    assert again.ids.tolist() == images.ids.tolist()


def cifar_batches(folder: Any, per_batch: Any = 10) -> Any:
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    random = np.random.default_rng(0)
    pixels = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        images = random.integers(0, 256, (per_batch, 32, 32, 3), dtype=np.uint8)
        rows = [
            bytes([label % 10]) + image.transpose(2, 0, 1).tobytes()
            for label, image in enumerate(images)
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(rows))
        pixels[name] = images
    return pixels


def test_cifar10_from_the_binary_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = cifar_batches(tmp_path / "cifar-10-batches-bin")
    packed(monkeypatch, cifar10, "ARCHIVE", tmp_path, "gztar")
    images = open_data(f"cifar10:root={tmp_path}")
    assert len(images) == 60
    assert images.ids[13] == "data_batch_2/00003"
    assert images.split.tolist() == ["gallery"] * 50 + ["query"] * 10
    assert images.labels[:12].tolist() == [*range(10), 0, 1]
    np.testing.assert_array_equal(np.asarray(images.source.load(13)), pixels["data_batch_2"][3])
    np.testing.assert_array_equal(np.asarray(images.source.load(59)), pixels["test_batch"][9])
    assert len({images.source.digest(i) for i in range(60)}) == 60
    assert len({images.source.stamp(i) for i in range(60)}) == 60
    parts = split(images, val=0.2)  # seen classes: 1 of 5 images a class is held out
    assert len(parts.train) == 40
    assert set(images.labels[parts.train].tolist()) == set(range(10))
    np.testing.assert_array_equal(parts.val.gallery, parts.train)
    assert len(np.intersect1d(parts.val.queries, parts.train)) == 0
    assert len(parts.test.gallery) == 50
    assert len(parts.test.queries) == 10


@pytest.mark.parametrize(("change", "message"), [(b"x", "bytes, expected a multiple of 3073")])
def test_cifar10_damaged(tmp_path: Path, change: Any, message: str) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    cifar_batches(folder)
    with (folder / "data_batch_3.bin").open("ab") as file:
        file.write(change)
    with pytest.raises(CompatError, match=message):
        open_data(f"cifar10:root={tmp_path}")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(CompatError, match=r"no file .*data_batch_3\.bin"):
        open_data(f"cifar10:root={tmp_path}")


def test_cifar10_as_real_image_files(real_data: Path) -> None:
    images = open_data("cifar10:root=cifar10", root=real_data)
    assert images.name == "cifar10"
    assert (images.split == "gallery").sum() == 10_000
    assert (images.split == "query").sum() == 2_000
    assert images.source.load(0).size == (32, 32)
    assert open_data(images.spec).name == "cifar10"


def test_sop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Stanford_Online_Products"
    number = 0
    for listing, first in (("Ebay_train.txt", 1), ("Ebay_test.txt", 5)):
        lines = ["image_id class_id super_class_id path"]
        for product in range(first, first + 4):
            for shot in range(2):
                number += 1
                path = f"mug_final/{product}_{shot}.JPG"
                picture(folder / path, number)
                lines.append(f"{number} {product} 1 {path}")
        (folder / listing).write_text("\n".join(lines) + "\n")
    packed(monkeypatch, sop, "ARCHIVE", tmp_path, "zip")
    images = open_data(f"sop:root={tmp_path}")
    assert (len(images), len(images.classes)) == (16, 8)
    assert images.ids[0] == "mug_final/1_0.JPG"
    parts = split(images, val=0.5)
    named = {images.classes[label] for label in images.labels[parts.test.gallery]}
    assert named == {"5", "6", "7", "8"}
    (tmp_path / "Stanford_Online_Products" / "Ebay_test.txt").write_text("header\n1 2\n")
    with pytest.raises(CompatError, match=r"Ebay_test\.txt has 2 columns in line 2, expected 4"):
        open_data(f"sop:root={tmp_path}")


def test_cub200(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "CUB_200_2011"
    names = [f"{i:03d}.Bird_{i}" for i in range(1, 9)]
    paths = [f"{name}/shot_{shot}.jpg" for name in names for shot in range(2)]
    for number, path in enumerate(paths):
        picture(folder / "images" / path, number)
    rows = {
        "classes.txt": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "images.txt": [f"{i} {path}" for i, path in enumerate(paths, 1)],
        "image_class_labels.txt": [f"{i} {(i + 1) // 2}" for i in range(1, 17)],
    }
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    packed(monkeypatch, cub200, "ARCHIVE", tmp_path, "gztar")
    images = open_data("cub200", root=tmp_path)
    assert images.classes == tuple(names)
    assert images.split.tolist() == ["train"] * 8 + [""] * 8
    assert images.source.load(3).size == (12, 10)


@pytest.mark.parametrize("nested", [True, False])
def test_inshop(tmp_path: Path, nested: Any) -> None:
    base = tmp_path / "Img" if nested else tmp_path
    listing = tmp_path / ("Eval" if nested else ".") / "list_eval_partition.txt"
    listing.parent.mkdir(exist_ok=True)
    lines = []
    for item, parts in (("id_1", "train train"), ("id_2", "query gallery gallery")):
        for shot, part in enumerate(parts.split()):
            path = f"img/WOMEN/{item}/{shot}.jpg"
            picture(base / path, len(lines))
            lines.append(f"{path} {item} {part}")
    listing.write_text("\n".join(["5", "image_name item_id evaluation_status", *lines]))
    images = open_data(f"inshop:root={tmp_path}")
    assert images.split.tolist() == ["train", "train", "query", "gallery", "gallery"]
    assert images.classes == ("id_1", "id_2")
    assert images.source.load(4).size == (12, 10)
    listing.write_text(listing.read_text().replace("gallery", "galery"))
    with pytest.raises(CompatError, match=r"'galery'.*did you mean 'gallery'"):
        open_data(f"inshop:root={tmp_path}")


def test_inshop_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="cannot be downloaded by a program: ask for it at http"):
        open_data(f"inshop:root={tmp_path},download=true")
    with pytest.raises(CompatError, match="holds neither Eval/list_eval_partition"):
        open_data(f"inshop:root={tmp_path}")


def test_a_missing_archive_says_where_it_is_had(tmp_path: Path) -> None:
    with pytest.raises(
        CompatError, match=r"neither .*images_background nor .*\.zip: .*download=true"
    ):
        open_data(f"omniglot:root={tmp_path}")


def test_a_wrong_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / cub200.ARCHIVE.file).write_bytes(b"something else")
    with pytest.raises(CompatError, match=r"MD5 checksum .* expected 97eceeb196236b"):
        open_data(f"cub200:root={tmp_path}")
    assert not (tmp_path / cub200.ARCHIVE.folder).exists()


def test_an_archive_without_its_folder_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "CUB_200_2011").mkdir()
    (tmp_path / "CUB_200_2011" / "file").write_text("x")
    packed(monkeypatch, cub200, "ARCHIVE", tmp_path, "gztar")
    archive = dataclasses.replace(cub200.ARCHIVE, folder="other")
    monkeypatch.setattr(cub200, "ARCHIVE", archive)
    with pytest.raises(CompatError, match="does not hold the folder 'other'"):
        open_data(f"cub200:root={tmp_path}")
    assert [file.name for file in tmp_path.iterdir()] == [archive.file]


def test_a_failed_download_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(sop.ARCHIVE, url=f"file://{tmp_path}/nowhere/a.zip")
    monkeypatch.setattr(sop, "ARCHIVE", broken)
    with pytest.raises(CompatError, match=r"download of file:.* failed .* fetch it by hand"):
        open_data(f"sop:root={tmp_path}/new,download=true")


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """A folder and the address on this machine where it is served."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_a_download_is_checked_and_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    folder, address = server
    for part, alphabet in (("images_background", "A"), ("images_evaluation", "B")):
        class_folders(folder / part / alphabet, {"character01": 2})
    for name in ("BACKGROUND", "EVALUATION"):
        packed(monkeypatch, omniglot, name, folder, "zip")
        archive = getattr(omniglot, name)
        url = f"{address}/{archive.file}"
        monkeypatch.setattr(omniglot, name, dataclasses.replace(archive, url=url))
    images = open_data(f"omniglot:root={tmp_path}/home,download=true")
    assert len(images) == 4
    wrong = dataclasses.replace(omniglot.BACKGROUND, md5="0" * 32)
    monkeypatch.setattr(omniglot, "BACKGROUND", wrong)
    with pytest.raises(CompatError, match=r"download of http.* failed"):
        open_data(f"omniglot:root={tmp_path}/other,download=true")
    assert not (tmp_path / "other" / "images_background").exists()
