"""A run folder: one study, its settings, weights, storage and what was made of it."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore, get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from compat.device import pick_device
from compat.tasks.embedded import Embedded
from compat.tasks.further import embed_unlabelled, open_unlabelled
from compat.tasks.study_data import StudyData, load_study_data
from nas.alignment.aligner import Aligner
from nas.alignment.mapping import gains_by_mixed
from nas.candidates.proposal import Proposal
from nas.candidates.routes import Route, create_route
from nas.config.plugins import import_trusted
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.database import check_sqlite, open_storage, open_study, sqlite_url
from nas.study.front import Record, pareto_front, scored
from nas.study.run_file import (
    FINGERPRINT,
    RunFile,
    is_run,
    read_run_file,
    read_study,
    write_run_file,
)
from pruning import load_model
from searchspaces import Architecture, QueryModel
from searchspaces.support.errors import reason
from searchspaces.support.files import write_atomically
from searchspaces.support.settings import bind_settings

logger = logging.getLogger("querynas")

_MIXED = "gains by mixed views"  # of a study, in its attributes
_FREE = ("trials", "finish", "tiers", "imports")


@dataclass(frozen=True, eq=False)
class Run:
    """A study on disk.

    Attributes:
        path: The run folder.
        config: The study file's content.
        given_storage: Optuna storage URL that the search was given; None for SQLite in the folder.
    """

    path: Path
    config: StudyConfig
    given_storage: str | None = None

    @property
    def storage_url(self) -> str:
        """Where Optuna keeps the trials."""
        return self.given_storage or sqlite_url(self._database)

    @classmethod
    def create(cls, path: str | Path, config: StudyConfig, storage: str | None = None) -> "Run":
        """Return a new run, or the one that the folder holds; nothing is written before `save`.

        Raises:
            StudyError: The folder holds a study with another gallery, space, loss or data, or an
                objective asks for labels that the data lack.
            CompatError: The data or gallery cannot be read, or too little is searched for an
                agreement.
        """
        path = Path(path)
        run = cls(path, config.with_loss(), storage)
        if not run.data.images.labelled:
            config = config.without_labels()
            run = cls(path, config.with_loss(), storage)
        if "agreement" in config.objectives:
            run.data.check_ranked()
        if is_run(path) and run.begun:
            known = read_run_file(path)
            run = cls(path, known.as_then(config), storage or known.storage)
            bind_settings(f"The run '{path}'", known.settings(), run._identity(), error=StudyError)
        return run

    def save(self) -> None:
        """Write the run's settings into its folder."""
        file = RunFile(
            version=RunFile.NEWEST,
            identity=self._identity(),
            storage=self.given_storage,
            study=self.study_name,
        )
        write_run_file(self.path, file, self.config)

    @classmethod
    def open(cls, path: str | Path, *, trust_imports: bool = False) -> "Run":
        """Open a run folder that `querynas search` has made.

        Args:
            path: The folder.
            trust_imports: Whether to import the modules that its study names even if this user
                never trusted them, see `nas.config.plugins.import_trusted`.

        Raises:
            StudyError: The folder is missing or is no run folder, a file of it is broken, or it
                names a module that is not trusted.
        """
        path = Path(path)
        file, config = read_run_file(path), read_study(path)
        import_trusted(config.imports, path, trust=trust_imports)
        return cls(path, file.as_then(config), file.storage)

    @cached_property
    def data(self) -> StudyData:
        """The pictures and gallery vectors of the study."""
        config = self.config
        return load_study_data(config.data, config.gallery, config.split, config.judge)

    @cached_property
    def storage(self) -> RDBStorage:
        """Optuna's storage."""
        if self.given_storage is None and self._database.exists():
            check_sqlite(self._database)
        return open_storage(self.storage_url)

    @cached_property
    def artifacts(self) -> FileSystemArtifactStore:
        """Optuna's artifact store: weights of candidates that own their weights."""
        folder = self.path / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        return FileSystemArtifactStore(str(folder))

    @cached_property
    def study_name(self) -> str:
        """Name of the Optuna study; runs with other settings have other names in one storage."""
        if is_run(self.path) and self.begun:
            return read_run_file(self.path).study
        digest = sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()
        return f"{self.path.name}-{digest[:8]}"

    @property
    def _database(self) -> Path:
        return self.path / "study.db"

    @property
    def begun(self) -> bool:
        """Whether anything was computed yet, so that the settings are bound to it."""
        return any(self.shared.glob("*"))

    @property
    def shared(self) -> Path:
        """Folder of the weights that candidates share, and of checkpoints."""
        return self.path / "shared"

    @property
    def warm_start(self) -> Path:
        """Folder of what was brought from an earlier run, see `nas.study.warm_start`."""
        return self.path / "warm_start"

    @property
    def gallery_fingerprint(self) -> str:
        """Fingerprint of the gallery space that the run was begun with, which may be gone."""
        return read_run_file(self.path).gallery_fingerprint

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study.

        Raises:
            StudyError: As `nas.study.database.open_study`.
        """
        if self.given_storage is None and not self._database.exists():
            raise StudyError(
                f"The run '{self.path}' holds no study yet; run `querynas search` to its end first."
            )
        return open_study(
            self.storage,
            self.study_name,
            objectives=self.config.objectives,
            routes=self.config.spaces,
        )

    @cached_property
    def routes(self) -> dict[str, Route]:
        """The ways to a candidate, by their name in the study file."""
        dimension = self.data.gallery.dimension
        return {n: create_route(n, c, dimension) for n, c in self.config.spaces.items()}

    def proposal(self, name: str, architecture: Architecture) -> Proposal:
        """Return a candidate on the route of that name."""
        return Proposal(self.routes[name], architecture, self.config.latency_table)

    @cached_property
    def aligner(self) -> Aligner:
        """The alignment set-up shared by all candidates."""
        size = max(route.largest_resolution for route in self.routes.values())
        training = self.data.training(size, self.further)
        if training.mixed and not self._gains_by_mixed:
            training = training.alone()
        return Aligner.of(self.config, training, self.data.val, seed=self.config.seed)

    @cached_property
    def _gains_by_mixed(self) -> bool:
        """Whether mixed views of the gallery are trained on; decided once for a run.

        They are where they make the ridge map of the first pretrained backbone better at the
        middle one of its resolutions, by the validation queries.
        """
        if (known := self.study.user_attrs.get(_MIXED)) is not None:
            return bool(known)
        found = next((r for r in self.routes.values() if r.backbones()), None)
        gains = False
        if found is not None:
            backbones = found.backbones()
            model = found.backbone(backbones[len(backbones) // 2])
            gains = gains_by_mixed(model, self.data, self.further, seed=self.config.seed)
        self.study.set_user_attr(_MIXED, gains)
        return gains

    def embed_unlabelled(self) -> None:
        """Embed the `unlabelled` images that have no gallery yet, once."""
        embed_unlabelled(self.config.unlabelled, self.data.gallery, self._unlabelled)

    @cached_property
    def further(self) -> tuple[Embedded, ...]:
        """The `unlabelled` images with their vectors."""
        return open_unlabelled(self.config.unlabelled, self.data, self._unlabelled)

    @property
    def _unlabelled(self) -> Path:
        """Folder of the galleries of `unlabelled` images."""
        return self.path / "unlabelled"

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other search of this folder does what one search does for all.

        The turn of a process that was killed ends with it.
        """
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("Another search works on '%s'; this one waits for its turn.", self.path)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def prepare(self) -> None:
        """Train what each route's candidates share, once; later calls load it."""
        for name, route in self.routes.items():
            start = self.warm_start / f"{name}.safetensors"
            route.prepare(self.aligner, self.shared, start=start if start.exists() else None)
            start.unlink(missing_ok=True)

    def records(self) -> list[Record]:
        """Return every scored candidate."""
        return scored(self.study)

    def front(self) -> list[Record]:
        """Return the Pareto front, by MACs."""
        return pareto_front(self.study)

    def record(self, trial: int) -> Record:
        """Return the scored candidate of one trial.

        Raises:
            StudyError: There is no such trial, or it was not scored.
        """
        records = {r.trial: r for r in self.records()}
        if trial not in records:
            raise StudyError(
                f"The run '{self.path}' has no scored trial {trial}; `querynas pareto "
                f"{self.path}` lists those of the front."
            )
        return records[trial]

    def model(self, record: Record) -> QueryModel:
        """Return a candidate's query model as it was scored, where searches compute."""
        trials = self.study.get_trials(deepcopy=False)
        metas = self._artifacts_of(trials[record.trial])
        if not metas:
            route = self.routes[record.route]
            route.prepare(self.aligner, self.shared)
            return route.candidate(record.architecture, self.aligner).model
        file = self.path / "models" / f"trial-{record.trial}.safetensors"
        if not file.exists():
            self._copy_artifact(metas[0].artifact_id, record.trial, file)
        return load_model(file).to(pick_device())

    def _artifacts_of(self, trial: FrozenTrial) -> list[ArtifactMeta]:
        try:
            return get_all_artifact_meta(trial, storage=self.storage)
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(
                f"What '{self.storage_url}' says of the weights of trial {trial.number} cannot be "
                f"read ({reason(error)}); restore the database, or search again."
            ) from error

    def _copy_artifact(self, name: str, trial: int, file: Path) -> None:
        try:
            with self.artifacts.open_reader(name) as weights:
                content = weights.read()
        except (ArtifactNotFound, OSError, ValueError) as error:
            raise StudyError(
                f"The weights of trial {trial} cannot be read from '{self.path / 'artifacts'}' "
                f"('{name}': {reason(error)}); copy the whole run folder, or search again."
            ) from error
        write_atomically(file, lambda path: path.write_bytes(content))

    def _identity(self) -> dict[str, Any]:
        """What must not change when a study is continued."""
        content = self.config.model_dump(mode="json")
        for field in _FREE:
            del content[field]
        content[FINGERPRINT] = self.data.gallery.fingerprint
        return content
