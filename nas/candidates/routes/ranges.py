"""How far a space reaches, in pixels and in MACs."""

from nas.config.objectives import BudgetConfig
from searchspaces import SearchSpace, parameters


def largest_resolution(space: SearchSpace) -> int:
    """Return the side in pixels of the largest input in a space."""
    return max(
        int(side)
        for name, axis in space.distributions().items()
        if name.rpartition(".")[2] == "resolution"
        for side in parameters.grid(name, axis)
    )


def within_macs(macs: int, budget: BudgetConfig) -> bool:
    """Whether so many MACs keep a budget."""
    return (budget.min_macs or 0) <= macs <= (budget.max_macs or macs)
