"""From pooled features into the gallery space: an affine map, perhaps of lifted features."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

LiftKind = Literal["low-rank", "mlp"]


@dataclass(frozen=True)
class Lift:
    """What the affine map of a projection sees instead of the features themselves.

    Attributes:
        kind: "low-rank" for fewer of them, see `Reduced`; "mlp" for more, see `Widened`.
        width: How many: the rank, or the hidden units.
    """

    kind: LiftKind
    width: int


class Reduced(nn.Module):
    """Features x (B, c) to their linear combinations Ax (B, width): a map of that rank follows."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(channels, width, bias=False)
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        return self.inner(features)


class Widened(nn.Module):
    """Features x (B, c) to (x, ReLU(Ax + a)) (B, c + width).

    An affine map of these is a residual network: an affine map of x, and a layer with one hidden
    layer added to it.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(channels, width)
        self.width = channels + width

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.inner(features).relu()], dim=-1)


_LIFTS = {"low-rank": Reduced, "mlp": Widened}


class Projection(nn.Module):
    """An affine map from pooled features to the gallery's dimension.

    Args:
        channels: Number of pooled features.
        dimension: Number of dimensions of the gallery space.
        norm: Whether a BatchNorm comes first.
        lift: What else comes before the map; nothing when None.
    """

    def __init__(
        self, channels: int, dimension: int, *, norm: bool = False, lift: Lift | None = None
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels) if norm else nn.Identity()
        self.lift: Any = nn.Identity()
        if lift is not None:
            self.lift = _LIFTS[lift.kind](channels, lift.width)
        width = channels if lift is None else self.lift.width
        self.linear = nn.Linear(width, dimension)
        nn.init.zeros_(self.linear.bias)
        self._lift = lift

    @property
    def channels(self) -> int:
        """Number of pooled features."""
        first = self.linear if self._lift is None else self.lift.inner
        return int(first.in_features)

    @property
    def description(self) -> dict[str, Any]:
        """JSON-able: with the number of features, all that makes a projection without a norm."""
        lift = None if self._lift is None else asdict(self._lift)
        return {"dimension": self.linear.out_features, "lift": lift}

    def lifted(self, features: Tensor) -> Tensor:
        """Map pooled features (B, c) to what the affine map sees."""
        lifted: Tensor = self.lift(self.norm(features))
        return lifted

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.lifted(features))

    def be_linear(self) -> None:
        """Drop the bias, as models of before have none."""
        self.linear.register_parameter("bias", None)
