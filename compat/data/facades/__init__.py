"""Synthetic photographs of made-up buildings, rendered here from a seed; not real images."""

from compat.data.facades.source import FacadeSource, open_facades

__all__ = ["FacadeSource", "open_facades"]
