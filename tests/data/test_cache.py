"""Decoding once: same pixels as by hand, resumable, and honest about damage."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import class_folders, picture
from PIL import Image, ImageOps

from compat.data import decode, open_data, open_facades, store
from compat.errors import CompatError


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    return class_folders(tmp_path / "images", {"a": 3, "b": 4})


def by_hand(path: Any, size: Any, fit: Any) -> Any:
    image = Image.open(path).convert("RGB")
    if fit == "crop":
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def files_of(cache: Any, name: Any) -> Any:
    return sorted(Path(cache).glob(f"decoded/*/{name}"))


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_pixels_equal_those_decoded_by_hand(folder: Any, tmp_path: Path, fit: Any) -> None:
    images = open_data(folder)
    decoded = decode(images, 8, fit=fit, cache=tmp_path / "cache")
    assert isinstance(decoded.pixels, np.memmap)
    assert decoded.pixels.dtype == np.uint8
    expected = [by_hand(folder / name, 8, fit) for name in images.ids]
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.images is images
    assert decoded.broken == ()


def test_a_second_call_decodes_and_reads_nothing(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = np.array(decode(open_data(folder), 8, cache=cache).pixels)
    images = open_data(folder)
    monkeypatch.setattr(type(images.source), "load", None)
    monkeypatch.setattr(type(images.source), "digest", None)
    np.testing.assert_array_equal(decode(images, 8, cache=cache).pixels, first)


def test_a_changed_image_is_decoded_again_and_a_moved_folder_is_not(
    folder: Any, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    decode(open_data(folder), 8, cache=cache)
    moved = folder.rename(tmp_path / "moved")
    decode(open_data(moved), 8, cache=cache)
    assert len(files_of(cache, "items.npy")) == 1
    picture(moved / "a" / "000.png", 99)
    images = open_data(moved)
    decoded = decode(images, 8, cache=cache)
    np.testing.assert_array_equal(decoded.pixels[0], by_hand(moved / "a/000.png", 8, "crop"))
    assert len(files_of(cache, "items.npy")) == 2


def test_sizes_and_fits_do_not_mix(folder: Any, tmp_path: Path) -> None:
    images, cache = open_data(folder), tmp_path / "cache"
    shapes = {
        decode(images, size, fit=fit, cache=cache).pixels.shape
        for size in (4, 8)
        for fit in ("crop", "squash")
    }
    assert shapes == {(7, 4, 4, 3), (7, 8, 8, 3)}
    assert len(files_of(cache, "items.npy")) == 4


def test_rendered_images(tmp_path: Path) -> None:
    images = open_facades(classes=2, images=3, size=32)
    decoded = decode(images, 32, cache=tmp_path)
    np.testing.assert_array_equal(decoded.pixels[4], np.asarray(images.source.load(4)))


@pytest.fixture
def many(tmp_path: Path) -> Any:
    return class_folders(tmp_path / "many", {"a": 100, "b": 100})


def test_broken_images_are_named_and_left_out(many: Any, tmp_path: Path) -> None:
    (many / "a" / "005.png").write_bytes(b"no image")
    (many / "b" / "099.png").write_bytes((many / "b" / "098.png").read_bytes()[:60])
    images, cache = open_data(many), tmp_path / "cache"
    for _ in range(2):  # made, then opened
        with pytest.warns(UserWarning, match=r"2 of 200 images .* a/005\.png, b/099\.png"):
            decoded = decode(images, 6, cache=cache)
        assert decoded.broken == ("a/005.png", "b/099.png")
        assert len(decoded.images) == len(decoded.pixels) == 198
        expected = [by_hand(many / name, 6, "crop") for name in decoded.images.ids]
        np.testing.assert_array_equal(decoded.pixels, expected)


def test_strict_stops_at_the_first_broken_image(many: Any, tmp_path: Path) -> None:
    (many / "a" / "005.png").write_bytes(b"no image")
    images, cache = open_data(many), tmp_path / "cache"
    with pytest.raises(CompatError, match=r"a/005\.png cannot be read"):
        decode(images, 6, cache=cache, strict=True)
    with pytest.warns(UserWarning, match="1 of 200"):
        decode(images, 6, cache=cache)
    with pytest.raises(CompatError, match=r"1 of 200 .* expected none; .* a/005\.png"):
        decode(images, 6, cache=cache, strict=True)


def test_more_than_one_percent_broken_stops_with_the_list(many: Any, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (many / "a" / f"00{number}.png").write_bytes(b"no image")
    listed = r"3 of 200 .* at most 1%; .* a/001\.png, a/002\.png, a/003\.png"
    with pytest.raises(CompatError, match=listed):
        decode(open_data(many), 6, cache=tmp_path / "cache")


def test_an_image_that_vanished_counts_as_broken(many: Any, tmp_path: Path) -> None:
    images = open_data(many)
    (many / "a" / "000.png").unlink()
    with pytest.warns(UserWarning, match=r"a/000\.png"):
        assert len(decode(images, 6, cache=tmp_path / "cache").pixels) == 199


@pytest.mark.parametrize("kind", ["device", "pipe", "nothing"])
def test_what_is_no_regular_file_counts_as_broken(many: Any, tmp_path: Path, kind: str) -> None:
    place = many / "a" / "005.png"
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero" if kind == "device" else tmp_path / "nowhere.png")
    (many / "a" / "folder.png").mkdir()  # which no image is
    images, cache = open_data(many), tmp_path / "cache"
    sentence = "There is no file" if kind == "nothing" else "is no regular file; restore it or"
    with pytest.raises(CompatError, match=sentence):
        decode(images, 6, cache=cache, strict=True)
    with pytest.warns(UserWarning, match=r"1 of 200 images .* a/005\.png"):
        assert len(decode(images, 6, cache=cache).pixels) == 199


_BUILD = """
import sys, time
from pathlib import Path
import compat.data.store as store
from compat.data import decode, open_facades
from compat.data.facades import FacadeSource
store.CHUNK = 4
log, cache, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
render = FacadeSource.load
def load(self, index):
    with log.open("a") as file:
        file.write(f"{index}\\n")
    time.sleep(pause)
    return render(self, index)
FacadeSource.load = load
decode(open_facades(classes=4, images=5, size=16), 16, cache=cache)
"""


def test_a_killed_build_is_resumed_where_it_was(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    command = [sys.executable, "-c", _BUILD, str(log), str(cache)]
    process = subprocess.Popen([*command, "0.2"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not files_of(cache, "progress.json") and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = json.loads(files_of(cache, "progress.json")[0].read_text())["done"]
    assert 4 <= done < 20
    assert not files_of(cache, "items.npy")
    log.unlink()
    subprocess.run([*command, "0"], stderr=subprocess.DEVNULL, check=True)
    loaded = sorted(int(line) for line in log.read_text().split())
    assert loaded == list(range(done, 20))
    images = open_facades(classes=4, images=5, size=16)
    decoded = decode(images, 16, cache=cache)
    expected = [np.asarray(images.source.load(i)) for i in range(20)]
    np.testing.assert_array_equal(decoded.pixels, expected)


def test_two_processes_do_the_work_once(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    command = [sys.executable, "-c", _BUILD, str(log), str(cache), "0.05"]
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(int(line) for line in log.read_text().split()) == list(range(20))


def test_progress_without_its_pixels_starts_over(folder: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    images = open_data(folder)
    expected = np.array(decode(images, 8, cache=cache).pixels)
    files_of(cache, "items.npy")[0].unlink()
    np.testing.assert_array_equal(decode(images, 8, cache=cache).pixels, expected)


def truncate(path: Any) -> None:
    os.truncate(path, path.stat().st_size - 1)


def reshape(path: Any) -> None:
    np.save(path, np.zeros((7, 4, 4, 3), dtype=np.uint8))


def retype(path: Any) -> None:
    np.save(path, np.zeros((7, 8, 8, 3), dtype=np.int8))


def overwrite(path: Any) -> None:
    path.write_bytes(b"something else")


def pickled(path: Any) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("damage", [truncate, reshape, retype, overwrite, pickled])
def test_a_damaged_cache_is_named_with_its_remedy(folder: Any, tmp_path: Path, damage: Any) -> None:
    cache, images = tmp_path / "cache", open_data(folder)
    expected = np.array(decode(images, 8, cache=cache).pixels)
    path = files_of(cache, "items.npy")[0]
    damage(path)
    with pytest.raises(CompatError, match=r"items\.npy is damaged .*: delete its folder") as caught:
        decode(images, 8, cache=cache)
    assert str(path.parent) in str(caught.value)
    for file in path.parent.iterdir():
        file.unlink()
    np.testing.assert_array_equal(decode(images, 8, cache=cache).pixels, expected)


def test_a_damaged_progress_file_and_damaged_digests(folder: Any, tmp_path: Path) -> None:
    cache, images = tmp_path / "cache", open_data(folder)
    decode(images, 8, cache=cache)
    for memory in (cache / "digests").iterdir():
        memory.write_text("{broken")
    decode(images, 8, cache=cache)
    files_of(cache, "progress.json")[0].write_text("{}")
    with pytest.raises(CompatError, match=r"progress\.json.* 'done' is missing.*delete its folder"):
        decode(images, 8, cache=cache)


def test_too_little_space_is_found_before_the_start(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage(10_000, 9_000, 1_000))
    with pytest.raises(CompatError, match=r"disk is full: .*cache.* needs 1,344 bytes"):
        decode(open_data(folder), 8, cache=tmp_path / "cache")


def test_a_disk_that_fills_up_is_reported_and_the_work_kept(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, images = tmp_path / "cache", open_data(folder)
    monkeypatch.setattr(store, "CHUNK", 2)
    left = iter(range(3))
    sync = store.os.fsync

    def full(number: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(CompatError, match="disk is full"):
        decode(images, 8, cache=cache)
    monkeypatch.setattr(store.os, "fsync", sync)
    assert json.loads(files_of(cache, "progress.json")[0].read_text())["done"] == 6
    expected = [by_hand(folder / name, 8, "crop") for name in images.ids]
    np.testing.assert_array_equal(decode(images, 8, cache=cache).pixels, expected)


def test_a_cache_that_is_a_file(folder: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(CompatError, match=r"cannot be written .* set QUERYNAS_CACHE"):
        decode(open_data(folder), 8, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("resolution", "fit", "message"),
    [(0, "crop", "'resolution' is 0"), (8, "corp", "'fit' is 'corp'.*'crop' or 'squash'")],
)
def test_bad_settings(folder: Any, tmp_path: Path, resolution: Any, fit: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        decode(open_data(folder), resolution, fit=fit, cache=tmp_path)


def test_no_images(folder: Any, tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="no images to decode"):
        decode(open_data(folder).take([]), 8, cache=tmp_path)


def test_the_environment_names_the_default_cache(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUERYNAS_CACHE", str(tmp_path / "elsewhere"))
    decode(open_data(folder), 8)
    assert len(files_of(tmp_path / "elsewhere", "items.npy")) == 1


def test_real_photographs(real_data: Path, tmp_path: Path) -> None:
    images = open_data(real_data / "grocery").take(range(0, 5421, 300))
    decoded = decode(images, 48, cache=tmp_path)
    expected = by_hand(real_data / "grocery" / images.ids[5], 48, "crop")
    np.testing.assert_array_equal(decoded.pixels[5], expected)
