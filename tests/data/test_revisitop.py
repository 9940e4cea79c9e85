"""Revisited Oxford and Paris: the real ground truth, a hand-made one, and hostile pickles."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import picture

from compat.data import decode, open_data, split
from compat.data.revisitop import read_ground_truth
from compat.errors import CompatError


@pytest.mark.parametrize(("name", "count"), [("roxford5k", 4993), ("rparis6k", 6322)])
def test_real_ground_truth(real_data: Path, name: str, count: Any) -> None:
    path = real_data / "revisitop" / f"gnd_{name}.pkl"
    truth = read_ground_truth(path)
    assert (len(truth.queries), len(truth.gallery)) == (70, count)
    assert (truth.boxes[:, 2:] > truth.boxes[:, :2]).all()
    # Trusted here: a file with a known origin, read a second time by the ordinary reader.
    published = pickle.loads(path.read_bytes())["gnd"]
    for query, entry in enumerate(published):
        easy, hard, junk = (set(entry[key]) for key in ("easy", "hard", "junk"))
        expected = {
            "easy": (easy, junk | hard),
            "medium": (easy | hard, junk),
            "hard": (hard, junk | easy),
        }
        for protocol, (positives, ignored) in expected.items():
            assert set(truth.lists[protocol].positives[query].tolist()) == positives
            assert set(truth.lists[protocol].junk[query].tolist()) == ignored


def test_real_ground_truth_with_stand_in_images(real_data: Path, tmp_path: Path) -> None:
    gnd = real_data / "revisitop" / "gnd_roxford5k.pkl"
    truth = read_ground_truth(gnd)
    stand_in = picture(tmp_path / "stand_in.png", 0, size=(1100, 1100))
    folder = tmp_path / "jpg"
    folder.mkdir()
    for name in {*truth.queries, *truth.gallery}:
        os.link(stand_in, folder / f"{name}.jpg")
    images = open_data(f"revisitop:gnd={gnd},images={folder}")
    assert (images.split == "query").sum() == 70
    assert (images.split == "gallery").sum() == 4993
    x0, y0, x1, y1 = truth.boxes[0]
    assert images.source.load(0).size == (round(x1) - round(x0), round(y1) - round(y0))
    assert images.source.load(70).size == (1100, 1100)
    parts = split(images)
    assert len(parts.train) == len(parts.val.queries) == 0
    assert len(parts.test.queries) == 70
    os.unlink(folder / f"{truth.gallery[5]}.jpg")
    with pytest.raises(CompatError, match=f"lacks 1 of the 5063 images.*{truth.gallery[5]}"):
        open_data(f"revisitop:gnd={gnd},images={folder}")


def ground_truth(as_array: Any = list) -> Any:
    entry = {
        "bbx": as_array([1.0, 1.0, 9.0, 8.0]),
        "easy": as_array([0, 3]),
        "hard": as_array([1]),
        "junk": as_array([2]),
    }
    return {"imlist": ["a", "b", "c", "d"], "qimlist": ["q"], "gnd": [entry]}


def written(tmp_path: Path, content: Any, **options: Any) -> Any:
    path = tmp_path / "gnd_small.pkl"
    path.write_bytes(pickle.dumps(content, **options))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_numpy_arrays_are_admitted(tmp_path: Path, protocol: Any) -> None:
    truth = read_ground_truth(written(tmp_path, ground_truth(np.array), protocol=protocol))
    assert truth.lists["easy"].positives[0].tolist() == [0, 3]
    assert truth.lists["easy"].junk[0].tolist() == [1, 2]
    assert truth.lists["medium"].positives[0].tolist() == [0, 1, 3]
    assert truth.lists["hard"].junk[0].tolist() == [0, 2, 3]


def test_lists_survive_a_broken_gallery_image(tmp_path: Path) -> None:
    gnd = written(tmp_path, ground_truth())
    for number, name in enumerate("abcdq"):
        picture(tmp_path / f"{name}.png", number).rename(tmp_path / f"{name}.jpg")
    images = open_data(f"revisitop:gnd={gnd.name},images=.", root=tmp_path)
    kept = images.take([0, 1, 3, 4])  # without b, the one hard positive
    assert kept.lists["medium"].positives[0].tolist() == [0, 2]
    assert kept.lists["medium"].junk[0].tolist() == [1]
    assert decode(kept, 4).pixels.shape == (4, 4, 4, 3)


class Hostile:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize(
    "hostile",
    [
        Hostile(os.system, "touch harmed"),
        Hostile(eval, "open('harmed', 'w')"),
        Hostile(getattr, [], "append"),
        Hostile(pickle.loads, b""),
        Hostile(np.load, "x"),
    ],
)
def test_a_hostile_pickle_is_refused_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, ground_truth() | {"extra": hostile})
    with pytest.raises(CompatError, match="do not trust this file"):
        read_ground_truth(path)
    assert not (tmp_path / "harmed").exists()


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = written(tmp_path, ground_truth())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CompatError, match="is damaged"):
        read_ground_truth(path)
    for content in ([1, 2], {"imlist": []}, ground_truth() | {"qimlist": ["q", "r"]}):
        with pytest.raises(CompatError, match="is not a revisitop ground truth"):
            read_ground_truth(written(tmp_path, content))
    outside = ground_truth()
    outside["gnd"][0]["easy"] = [4]
    with pytest.raises(CompatError, match="position 4 of 4"):
        read_ground_truth(written(tmp_path, outside))
    with pytest.raises(CompatError, match="There is no file"):
        read_ground_truth(tmp_path / "nowhere.pkl")
