"""The steps of a pruning: each cuts, trains and scores a model, and is a trial of the run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from nas.alignment.fading import fade
from nas.candidates.routes import Candidate
from nas.deployment.opening import is_saved
from nas.recipes.prune_settings import PruneConfig, uncut_model
from nas.recipes.schedules import Step
from nas.study.front import Record
from nas.study.run import Run
from nas.study.scoring import keep_weights, measure
from pruning import NEEDS_LOSS, Target, figure, load_model, reach, save_model
from pruning.reaching import TOLERANCE
from searchspaces import Architecture, QueryModel

_LOOSE = 0.05  # how closely the rounds before the last one keep to their figures


@dataclass(frozen=True, eq=False)
class PruneSteps:
    """The schedule of a pruning, and the run that keeps what its steps leave.

    Attributes:
        run: The run; its trials are the steps.
        config: The settings.
        target: The target in absolute figures.
        steps: The schedule.
    """

    run: Run
    config: PruneConfig
    target: Target
    steps: Sequence[Step]

    def perform(self) -> tuple[Record, ...]:
        """Perform the steps that are not done yet; return the records of all."""
        for index in range(len(self.steps)):
            if index not in self._done():
                self._keep(index, self._trained(index))
            for file in (self._cut_file(index), self._checkpoint(index)):
                file.unlink(missing_ok=True)  # what only a step in progress needs
        return tuple(record for _, record in sorted(self._done().items()))

    def _done(self) -> dict[int, Record]:
        """The records of finished steps by their place in the schedule."""
        trials = {t.number: t for t in self.run.study.get_trials(deepcopy=False)}
        return {trials[r.trial].user_attrs["step"]: r for r in self.run.records()}

    def _trained(self, index: int) -> QueryModel:
        step, aligner = self.steps[index], self.run.aligner
        title = f"{step.name} ({index + 1}/{len(self.steps)})"
        model = self._cut(index)
        if step.training is not None and step.fade_to is not None:
            pruned = self._reach(model, step.fade_to)
            fade(aligner, model, pruned, step.training, title=title)
        elif step.training is not None:
            aligner.align(
                model,
                step.training,
                checkpoint=self._checkpoint(index),
                pretrained=self.config.starts_trained,
                title=title,
            )
        return model

    def _cut(self, index: int) -> QueryModel:
        """The model as a step trains it."""
        step, aligner, file = self.steps[index], self.run.aligner, self._cut_file(index)
        if file.exists():  # stopped in the middle of this step's training
            return load_model(file).to(aligner.device)
        model = self._before(index).to(aligner.device)
        if step.cut_to is not None and figure(model, self.target.quantity) > step.cut_to:
            last = step.cut_to == self.target.value
            model = self._reach(model, step.cut_to, TOLERANCE if last else _LOOSE)
            aligner.refit(model, self.config.calibration_images)
        save_model(model, file)
        return model

    def _before(self, index: int) -> QueryModel:
        if index == 0:
            model = uncut_model(self.config, self.run.data.gallery.dimension)
            if self.steps[0].training is not None or not is_saved(self.config.model):
                self.run.aligner.begin(model, pretrained=self.config.starts_trained)
            return model
        return self.run.model(self._done()[index - 1])

    def _reach(self, model: QueryModel, value: float, tolerance: float = TOLERANCE) -> QueryModel:
        config = self.config
        losses = None
        if config.criterion in NEEDS_LOSS:
            losses = self.run.aligner.batch_losses(
                batches=config.importance_batches, size=config.realign.batch
            )
        return reach(
            model,
            Target(self.target.quantity, value),
            criterion=config.criterion,
            scope=config.scope,
            round_to=config.round_to,
            batch_loss=losses,
            seed=config.seed,
            tolerance=tolerance,
        )

    def _keep(self, index: int, model: QueryModel) -> None:
        """Score the model on the validation classes; it counts once its weights are stored."""
        study = self.run.study
        number = len(study.get_trials(deepcopy=False))
        model = model.to(memory_format=torch.contiguous_format)  # as it is loaded: latency differs
        candidate = Candidate(model, self.steps[index].name, owns_weights=True)
        params: dict[str, str | int] = {
            "model": self.config.model,
            "step": index,
            "resolution": model.resolution,
        }
        proposal = self.run.proposal("pruned", Architecture("pruned", params))
        record = measure(self.run, number, proposal, candidate)
        record = replace(record, costs={**record.costs, "latency": figure(model, "latency")})
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, user_attrs={**record.attributes(), "step": index}
            )
        )
        keep_weights(self.run, study.get_trials(deepcopy=False)[number], candidate)
        study.tell(number, [float(record.macs), record.accuracy])

    def _cut_file(self, index: int) -> Path:
        return self.run.shared / f"{index}.safetensors"

    def _checkpoint(self, index: int) -> Path:
        return self.run.shared / f"{index}.checkpoint"
