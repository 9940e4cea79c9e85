"""Weights of others: what any training script writes is loaded, another network is refused."""

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compat.errors import CompatError
from compat.gallery import load_gallery_model
from searchspaces import SearchSpaceError, timm_query_model
from searchspaces.checkpoint import load_checkpoint

DATA = Path(os.environ.get("QUERYNAS_DATA", "../shared/data")) / "weights"

NAME = "lcnet_050"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Of a network with a classifier of seven classes."""
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=7).state_dict()


def load(path: Path) -> State:
    model = timm_query_model(NAME, 8, resolution=32, checkpoint=path)
    found: State = model.backbone.network.state_dict()
    return found


def without_counters(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if "num_batches" not in name}


WRITTEN = {
    "plain": lambda state: state,
    "without batch counters": without_counters,
    "by DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "under state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "under model": lambda state: {"model": state, "best": 0.5},
    "nested twice": lambda state: {"model": {"state_dict": state}},
    "all at once": lambda state: {
        "state_dict": {f"module.{n}": t for n, t in without_counters(state).items()}
    },
    "in half precision": lambda state: {
        n: t.half() if t.is_floating_point() else t for n, t in state.items()
    },
}


@pytest.mark.parametrize("how", WRITTEN)
def test_what_training_scripts_write_is_loaded(state: State, tmp_path: Path, how: str) -> None:
    torch.save(WRITTEN[how](state), tmp_path / "w.pth")
    found = load(tmp_path / "w.pth")
    assert found
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, state[name], atol=1e-3, rtol=1e-3)
    embedded = load_gallery_model(f"timm:{NAME},checkpoint={tmp_path / 'w.pth'},resolution=32")
    assert embedded.dimension == 1280


@pytest.mark.parametrize("how", ["plain", "without batch counters", "by DataParallel"])
def test_safetensors_are_loaded_just_so(state: State, tmp_path: Path, how: str) -> None:
    save_file(WRITTEN[how](state), tmp_path / "w.safetensors")
    for name, tensor in load(tmp_path / "w.safetensors").items():
        torch.testing.assert_close(tensor, state[name])


def test_the_average_is_preferred_to_the_last_weights(state: State, tmp_path: Path) -> None:
    last = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"state_dict": last, "state_dict_ema": state}, tmp_path / "w.pth")
    found = load(tmp_path / "w.pth")
    assert torch.equal(found["conv_stem.weight"], state["conv_stem.weight"])


def refusal(content: Any, path: Path) -> str:
    torch.save(content, path)
    with pytest.raises(SearchSpaceError, match=re.escape(path.name)) as caught:
        load(path)
    return str(caught.value)


def test_another_network_is_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    name = "conv_stem.weight"
    rest = {each: tensor for each, tensor in state.items() if each != name}
    assert f"has no tensor '{name}'" in refusal(rest, path)
    assert f"has no tensor '{name}'" in refusal({}, path)
    assert "has shape (3,), expected (8, 3, 3, 3)" in refusal({**state, name: torch.ones(3)}, path)
    assert "that the network lacks" in refusal({**state, "blocks.9.w": torch.ones(3)}, path)
    assert "is a float" in refusal({**state, name: 0.5}, path)
    assert "torch.sparse_coo" in refusal({**state, name: state[name].to_sparse()}, path)
    assert "torch.int64" in refusal({**state, name: state[name].long()}, path)
    assert "torch.complex64" in refusal({**state, name: state[name].to(torch.complex64)}, path)
    assert "not finite" in refusal({**state, name: state[name] * torch.nan}, path)
    assert "a list instead of a state dict" in refusal([state], path)
    assert "tensor instead of a state dict" in refusal(torch.zeros(3), path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    for path, sentence in [
        (tmp_path / "absent.pth", "There is no file"),
        (tmp_path, "is no regular file"),
        (Path("/dev/zero"), "is no regular file"),
        (tmp_path / ("long" * 100), r"cannot be read \(File name too long\)"),
        (tmp_path / "nul\0", "cannot be read"),
    ]:
        with pytest.raises(CompatError, match=sentence) as caught:
            load_checkpoint(network, path, error=CompatError)
        assert len(str(caught.value)) <= 300
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
        with pytest.raises(SearchSpaceError, match=name):
            load(tmp_path / name)


def test_an_archive_that_blows_up_is_not_blown_up(tmp_path: Path) -> None:
    """A compressed archive of torch.save's form: a quarter of a gigabyte of zeros in 256 KiB."""
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.infolist():
            content = plain.read(member)
            if member.filename.endswith("data.pkl"):
                content = content + bytes(1 << 28)
            bomb.writestr(member.filename, content)
    assert (tmp_path / "bomb.pth").stat().st_size < 512 << 10
    with pytest.raises(CompatError, match=r"bomb.pth cannot be read.*268435"):
        load_checkpoint(nn.Linear(2, 2, bias=False), tmp_path / "bomb.pth", error=CompatError)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CompatError, match=r"evil.pth cannot be read as plain tensors"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "evil.pth", error=CompatError)
    assert not (tmp_path / "executed").exists()


class CifarResNet(nn.Module):
    """Of akamaster's ResNet-20 one convolution and its norm; all else counts as its classifier."""

    pretrained_cfg = {"classifier": ("layer1", "layer2", "layer3", "linear")}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real weights in $QUERYNAS_DATA")
class TestRealWeights:
    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_100"])
    def test_timms_own(self, name: str, tmp_path: Path) -> None:
        model = timm_query_model(name, 8, resolution=64, checkpoint=DATA / f"{name}.safetensors")
        whole = model.backbone.network.state_dict()
        torch.save({"state_dict": without_counters(whole)}, tmp_path / "tf.pth")
        bare = timm_query_model(name, 8, resolution=64, checkpoint=tmp_path / "tf.pth")
        images = torch.rand(2, 3, 64, 64)
        assert torch.equal(bare.eval().pooled(images), model.eval().pooled(images))

    def test_a_data_parallel_file_in_the_form_before_archives(self) -> None:
        network = CifarResNet()
        load_checkpoint(network, DATA / "resnet20-12fca82f.th", error=CompatError)
        assert network.bn1.running_var is not None
        assert 0 < network.bn1.running_var.min() != 1

    def test_a_network_of_other_names_is_refused(self) -> None:
        path = DATA / "squeezenet1_1_imagenet_tvnames.pth"
        with pytest.raises(CompatError, match="has no tensor"):
            load_gallery_model(f"timm:resnet10t,checkpoint={path}")
