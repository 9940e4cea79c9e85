"""A candidate that a study proposes, as its costs see it."""

from collections.abc import Mapping
from typing import Any

from nas.candidates.objectives import Subject, asked
from nas.study.run import Run
from searchspaces import Architecture, QueryModel


def subject_of(
    run: Run, route: str, architecture: Architecture, model: QueryModel | None = None
) -> Subject:
    """Return a candidate of a study as its costs see it."""
    return Subject(
        space=run.routes[route].space,
        architecture=architecture,
        dimension=run.data.gallery.dimension,
        device=run.aligner.device,
        table=run.config.latency_table,
        given=model,
    )


def asked_costs(
    run: Run,
    route: str,
    architecture: Architecture,
    model: QueryModel,
    known: Mapping[str, float],
) -> dict[str, Any]:
    """Return the costs of a finished candidate that its study asks for, by name.

    Those in ``known`` are taken from there; the others are measured on the model.
    """
    wanted = asked(run.config)
    costs = {each.name: known[each.name] for each in wanted if each.name in known}
    missing = [each for each in wanted if each.name not in known]
    if missing:
        subject = subject_of(run, route, architecture, model)
        costs |= {each.name: each.cost_of(subject) for each in missing}
    return costs
