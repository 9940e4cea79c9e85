"""Compressed vectors: small codes on disk that read like a matrix of float32 vectors.

Two coders turn vectors into codes and back: `ProductCoder` (product quantisation, with or without a
rotation before it) and `SignCoder` (one bit per component). `ProductCodes` and `SignCodes` hold the
codes, as a rule memory-mapped, and decode the rows that are asked for: whoever reads
``vectors[rows]`` need not know whether floats or codes are stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from compat.errors import CompatError


@dataclass(frozen=True, eq=False)
class ProductCoder:
    """Product quantiser: the nearest of 2**bits centroids in each of m parts of a vector.

    Source: Jegou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 2011;
    with a rotation: Ge, He, Ke, Sun, "Optimized Product Quantization", CVPR 2013. Encoding and
    decoding are those of ``faiss.ProductQuantizer``.

    Attributes:
        centroids: (m, 2**bits, d/m) float32.
        rotation: (d, d) float32 orthogonal matrix R; codes are of R x. None: of x itself.
    """

    kind: ClassVar = "product"
    centroids: np.ndarray
    rotation: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.centroids.shape
        if len(shape) != 3 or not 2 <= shape[1] <= 256 or shape[1] & (shape[1] - 1):
            raise CompatError(
                f"Centroids have shape {shape}, expected (parts, 2**bits, width) with 1 to 8 bits: "
                "give those of a product quantiser."
            )
        if self.rotation is not None and self.rotation.shape != (self.dimension,) * 2:
            raise CompatError(
                f"The rotation has shape {self.rotation.shape}, expected "
                f"{(self.dimension,) * 2} as the centroids have {self.dimension} dimensions."
            )

    @property
    def dimension(self) -> int:
        """Width d of the vectors."""
        return int(self.centroids.shape[0] * self.centroids.shape[2])

    @property
    def bits(self) -> int:
        """Bits of the code of one part."""
        return int(self.centroids.shape[1]).bit_length() - 1

    @property
    def code_size(self) -> int:
        """Bytes of one vector's code."""
        return (self.centroids.shape[0] * self.bits + 7) // 8

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes uint8 (B, code_size) of float ``vectors`` (B, d), packed as faiss packs them."""
        rows = np.asarray(vectors, dtype=np.float32)
        if self.rotation is not None:
            rows = rows @ self.rotation.T
        codes: np.ndarray = self._quantizer.compute_codes(np.ascontiguousarray(rows))
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Float32 vectors (B, d) of ``codes`` (B, code_size)."""
        rows: np.ndarray = self._quantizer.decode(np.ascontiguousarray(codes))
        return rows if self.rotation is None else rows @ self.rotation

    @cached_property
    def _quantizer(self) -> Any:
        import faiss

        quantizer = faiss.ProductQuantizer(self.dimension, len(self.centroids), self.bits)
        values = np.ascontiguousarray(self.centroids, dtype=np.float32).ravel()
        faiss.copy_array_to_vector(values, quantizer.centroids)
        return quantizer


@dataclass(frozen=True)
class SignCoder:
    """Signs: one bit per component, 1 where it is not negative; decoded to +1 and -1.

    Attributes:
        dimension: Number k of components, and of bits.
    """

    kind: ClassVar = "sign"
    dimension: int

    @property
    def code_size(self) -> int:
        """Bytes of one vector's code; bits beyond the dimension are zero."""
        return (self.dimension + 7) // 8

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes uint8 (B, code_size) of ``vectors`` (B, k); the first component is bit 0."""
        return np.packbits(np.asarray(vectors) >= 0, axis=1, bitorder="little")

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Float32 (B, k) of +1 and -1."""
        bits = np.unpackbits(codes, axis=1, count=self.dimension, bitorder="little")
        return bits.astype(np.float32) * 2 - 1


Coder = ProductCoder | SignCoder


class Codes(ABC):
    """Codes that read like float32 vectors (N, d), or like views (V, n, d).

    Rows are asked for by number, slice, list, integer array or boolean mask and come decoded;
    views are asked for by number or slice and stay codes until rows of them are asked for.

    Attributes:
        codes: uint8 (N, code_size) or (V, n, code_size), typically a memory map.
        coder: What encodes and decodes.
    """

    codes: np.ndarray
    coder: Coder

    @property
    @abstractmethod
    def stored(self) -> dict[str, np.ndarray]:
        """The arrays that the values follow from, by name."""

    @abstractmethod
    def _of(self, codes: np.ndarray) -> Self:
        """Other codes of the same coder."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded vectors."""
        return (*self.codes.shape[:-1], self.coder.dimension)

    @property
    def ndim(self) -> int:
        """2, or 3 for views."""
        return self.codes.ndim

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Type of the decoded vectors."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            if len(index) == 2 and self.ndim == 3 and isinstance(index[0], int | np.integer):
                return self[index[0]][index[1]]
            raise IndexError(
                "Compressed vectors are read by whole rows: decode the rows first, then index "
                "their components."
            )
        chosen = self.codes[index]
        return self._of(chosen) if self.ndim == 3 else self._decode(chosen)

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Compressed vectors cannot be read without making an array of them.")
        return np.asarray(self._decode(self.codes), dtype=dtype)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        rows = self.coder.decode(np.asarray(codes).reshape(-1, codes.shape[-1]))
        return rows.reshape(*codes.shape[:-1], self.coder.dimension)


@dataclass(frozen=True, eq=False)
class ProductCodes(Codes):
    """Vectors behind product quantisation.

    Attributes:
        codes: uint8 (N, code_size) or (V, n, code_size).
        coder: Their product quantiser.
    """

    codes: np.ndarray
    coder: ProductCoder

    @property
    def stored(self) -> dict[str, np.ndarray]:
        """The codes, the centroids and, if there is one, the rotation."""
        arrays = {"codes": self.codes, "centroids": self.coder.centroids}
        if self.coder.rotation is not None:
            arrays["rotation"] = self.coder.rotation
        return arrays

    def _of(self, codes: np.ndarray) -> Self:
        return type(self)(codes, self.coder)


@dataclass(frozen=True, eq=False)
class SignCodes(Codes):
    """Vectors of +1 and -1, one bit each.

    Attributes:
        codes: uint8 (N, code_size) or (V, n, code_size); faiss' binary indexes search these bytes.
        coder: Their number of bits.
    """

    codes: np.ndarray
    coder: SignCoder

    @property
    def stored(self) -> dict[str, np.ndarray]:
        """The codes."""
        return {"codes": self.codes}

    def _of(self, codes: np.ndarray) -> Self:
        return type(self)(codes, self.coder)


def wrap(codes: np.ndarray, coder: Coder) -> Codes:
    """Codes (N, code_size) or (V, n, code_size) of ``coder``, to be read like vectors."""
    if isinstance(coder, SignCoder):
        return SignCodes(codes, coder)
    return ProductCodes(codes, coder)


Vectors = np.ndarray | Codes
