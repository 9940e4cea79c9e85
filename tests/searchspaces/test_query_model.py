"""Query models around timm backbones."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch

from searchspaces import PooledFeatures, QueryModel, SearchSpaceError, rebuild, timm_query_model
from searchspaces.query_model import GeneralizedMean


def make(name: Any = "lcnet_050", dimension: Any = 8, **options: Any) -> QueryModel:
    return timm_query_model(name, dimension, **{"resolution": 32, "pretrained": False, **options})


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_the_embedding_is_the_normalised_projection_of_timms_own_features(name: str) -> None:
    model = make(name).eval()
    images = torch.rand(2, 3, 32, 32)
    options = {"img_size": 32} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=0, **options).eval()
    network.load_state_dict(model.backbone.network.state_dict())
    config = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (config.mean, config.std))
    with torch.no_grad():
        features = network((images - mean) / std)
        expected = features @ model.projection.linear.weight.T
        torch.testing.assert_close(
            model(images), expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5
        )


def test_pooled_features_are_a_network_that_shares_the_models_weights() -> None:
    model = make("resnet10t").eval()
    features, images = PooledFeatures(model), torch.rand(2, 3, 32, 32)
    assert torch.equal(features(images), model.pooled(images))
    assert {id(each) for each in features.parameters()} == {id(each) for each in model.parameters()}
    projected = torch.nn.functional.normalize(model.projection(features(images)), dim=1)
    torch.testing.assert_close(projected, model(images))


def test_generalised_mean_follows_its_formula() -> None:
    maps = torch.rand(2, 5, 3, 4)
    expected = [[(m**3).mean() ** (1 / 3) for m in image] for image in maps]
    torch.testing.assert_close(GeneralizedMean()(maps), torch.tensor(expected))


def test_gem_with_exponent_one_is_average_pooling_of_non_negative_maps() -> None:
    average, gem = make("resnet10t").eval(), make("resnet10t", pooling="gem").eval()
    gem.load_state_dict(average.state_dict(), strict=False)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        next(m for m in gem.modules() if isinstance(m, GeneralizedMean)).exponent.fill_(1.0)
        torch.testing.assert_close(gem.pooled(images), average.pooled(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "ghostnet_100"])
def test_gem_keeps_the_number_of_pooled_features(name: str) -> None:
    average, gem = make(name), make(name, pooling="gem")
    assert any(isinstance(module, GeneralizedMean) for module in gem.modules())
    assert gem.projection.linear.in_features == average.projection.linear.in_features


def test_gem_pools_the_positions_of_channels_last_maps() -> None:
    model = make("swin_tiny_patch4_window7_224", pooling="gem", resolution=64)
    assert model.pooled(torch.rand(1, 3, 64, 64)).shape == (1, 768)


def test_batchnorm_before_the_projection_is_optional() -> None:
    assert isinstance(make(projection_norm=True).projection.norm, torch.nn.BatchNorm1d)
    assert isinstance(make().projection.norm, torch.nn.Identity)


def test_a_model_can_be_made_again_from_its_origin() -> None:
    model = make(pooling="gem", projection_norm=True)
    again = rebuild(model.origin)
    again.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images), model.eval()(images), atol=0, rtol=0)


@pytest.mark.parametrize("origin", [{}, {"timn": {}}])
def test_an_origin_of_no_kind_is_refused(origin: Any) -> None:
    with pytest.raises(SearchSpaceError, match="'timm' or 'space'"):
        rebuild(origin)


def test_pretrained_weights_that_cannot_be_had_are_no_silent_random_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SearchSpaceError, match=r"'lcnet_050'.*checkpoint=FILE.*pretrained=False"):
        make(pretrained=True)


def test_wrong_names_and_sizes_are_explained() -> None:
    with pytest.raises(SearchSpaceError, match="timm has no model 'resnet1t': did you mean"):
        make("resnet1t")
    with pytest.raises(SearchSpaceError, match="pooling is 'max'"):
        make(pooling="max")
    with pytest.raises(SearchSpaceError, match="no pooled feature map for pooling='gem'"):
        make("vit_tiny_patch16_224", pooling="gem")
    with pytest.raises(SearchSpaceError, match="'vit_tiny_patch16_224'"):
        make("vit_tiny_patch16_224", resolution=8)
