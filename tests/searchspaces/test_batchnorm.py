"""Adaptive BN against statistics worked out by hand."""

import pytest
import torch
from torch import nn

from searchspaces import SearchSpaceError, recalibrate


def test_statistics_are_the_averages_over_batches() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].running_mean.fill_(7.0)
    batches = [torch.rand(6, 3, 5, 5), torch.rand(2, 3, 5, 5)]
    recalibrate(model, iter(batches))
    with torch.no_grad():
        inputs = [model[0](batch).transpose(0, 1).flatten(1) for batch in batches]
    mean = sum(values.mean(1) for values in inputs) / 2
    variance = sum(values.var(1) for values in inputs) / 2
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)


def test_all_else_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5))
    weights = {name: value.clone() for name, value in model.named_parameters()}
    recalibrate(model, [torch.rand(4, 3)])
    assert model[1].momentum == 0.3
    assert not any(module.training for module in model.modules())
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, weights[name], atol=0, rtol=0)
        assert value.grad is None


def test_no_batches_are_refused_and_models_without_batchnorm_need_none() -> None:
    with pytest.raises(SearchSpaceError, match="at least one batch"):
        recalibrate(nn.BatchNorm1d(3), [])
    recalibrate(nn.Linear(2, 2), [])
