"""The stem, heads and widths of one concrete transformer, and what it costs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StemPlan:
    """From an image to a grid of tokens, one for every `patch` x `patch` pixels."""

    patch: int
    widths: tuple[int, ...]
    """Output channels of the 3x3 convolutions of stride 2; none for plain patches."""

    @property
    def name(self) -> str:
        """What the stem is called in a network that may hold several."""
        return f"{'conv' if self.widths else 'patch'}{self.patch}"

    @property
    def channels(self) -> int:
        """What a token's place holds before it is mapped to the embedding width."""
        return self.widths[-1] if self.widths else 3 * self.patch**2


@dataclass(frozen=True)
class BlockPlan:
    """Depthwise 3x3 position encoding, self-attention, MLP; all three residual."""

    width: int
    heads: int
    head_width: int
    hidden: int

    @property
    def attended(self) -> int:
        """Channels of the queries, of the keys and of the values."""
        return self.heads * self.head_width


@dataclass(frozen=True)
class NetworkPlan:
    """Stem, blocks of one width, mean over the tokens, LayerNorm."""

    resolution: int
    stem: StemPlan
    blocks: tuple[BlockPlan, ...]

    @property
    def width(self) -> int:
        """The embedding width."""
        return self.blocks[0].width

    @property
    def features(self) -> int:
        """Number of pooled features."""
        return self.width

    @property
    def side(self) -> int:
        """Side of the grid of tokens."""
        return self.resolution // self.stem.patch

    def macs(self, dimension: int) -> int:
        """Count the multiply-accumulates of one image exactly as `searchspaces.count_macs` does.

        Of a token: a linear map costs inputs · outputs, attention 2 · tokens · channels for its two
        matrix products, a LayerNorm 5 per element. A convolution costs k² · c_in/groups · c_out per
        output position, a BatchNorm 2 per element.

        Args:
            dimension: Number of dimensions that the pooled features are projected to.
        """
        tokens = self.side**2
        side, channels, total = self.resolution, 3, 0
        for width in self.stem.widths:
            side //= 2
            total += side**2 * width * (9 * channels + 2)
            channels = width
        total += tokens * self.stem.channels * self.width
        for block in self.blocks:
            position_and_norms = block.width * (9 + 5 + 5)
            attention = block.attended * (4 * block.width + 2 * tokens)
            total += tokens * (position_and_norms + attention + 2 * block.width * block.hidden)
        return total + 5 * self.width + self.features * dimension
