"""A run folder: one study, its settings, weights, storage and what was made of it."""

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from pydantic import ValidationError

from compat.device import pick_device
from compat.tasks.study_data import StudyData, load_study_data
from nas.alignment.aligner import Aligner
from nas.candidates.routes import Route, create_route
from nas.config.plugins import import_trusted
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.front import Record, pareto_front, scored
from pruning import load_model
from searchspaces import QueryModel
from searchspaces.support.files import write_atomically

_FREE = ("trials", "finish", "imports")
_FINGERPRINT = "gallery fingerprint"


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
        return self.given_storage or f"sqlite:///{self.path / 'study.db'}"

    @classmethod
    def create(cls, path: str | Path, config: StudyConfig, storage: str | None = None) -> "Run":
        """Return a new run, or the one that the folder holds; nothing is written before `save`.

        Raises:
            StudyError: The folder holds a study with another gallery, space, loss or data.
        """
        path = Path(path)
        run = cls(path, config, storage)
        identity = run._identity()
        known = path / "run.json"
        if known.exists() and run.begun:
            content = json.loads(known.read_text())
            before = _with_defaults(content["identity"])
            changed = [k for k, v in identity.items() if before.get(k) != v]
            if changed:
                field = changed[0]
                raise StudyError(
                    f"The run '{path}' was begun with {field} = {before.get(field)!r}, not "
                    f"{identity[field]!r}; choose another --out, or restore that setting."
                )
            run = cls(path, config, storage or content["storage"])
        return run

    def save(self) -> None:
        """Write the run's settings into its folder."""
        settings = {
            "identity": self._identity(),
            "storage": self.given_storage,
            "study": self.study_name,
        }
        text = json.dumps(settings, indent=2)
        write_atomically(self.path / "run.json", lambda file: file.write_text(text))
        content = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        write_atomically(self.path / "study.yaml", lambda file: file.write_text(content))

    @classmethod
    def open(cls, path: str | Path, *, trust_imports: bool = False) -> "Run":
        """Open a run folder that `querynas search` has made.

        Args:
            path: The folder.
            trust_imports: Whether to import the modules that its study names even if this user
                never trusted them, see `nas.config.plugins.import_trusted`.

        Raises:
            StudyError: The folder is missing or is no run folder, or it names a module that is
                not trusted.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise StudyError(
                f"'{path}' is no run folder (it has no run.json); give the --out folder of a "
                "`querynas search`."
            )
        config = StudyConfig.model_validate(yaml.safe_load((path / "study.yaml").read_text()))
        import_trusted(config.imports, path, trust=trust_imports)
        return cls(path, config, json.loads((path / "run.json").read_text())["storage"])

    @cached_property
    def data(self) -> StudyData:
        """The pictures and gallery vectors of the study."""
        return load_study_data(self.config.data, self.config.gallery, self.config.split)

    @cached_property
    def storage(self) -> RDBStorage:
        """Optuna's storage, with a heartbeat so that trials of killed workers run again."""
        arguments = {"timeout": 60} if self.storage_url.startswith("sqlite") else {}
        return RDBStorage(
            self.storage_url,
            engine_kwargs={"connect_args": arguments},
            heartbeat_interval=20,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=2),
        )

    @cached_property
    def artifacts(self) -> FileSystemArtifactStore:
        """Optuna's artifact store: weights of candidates that own their weights."""
        folder = self.path / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        return FileSystemArtifactStore(str(folder))

    @cached_property
    def study_name(self) -> str:
        """Name of the Optuna study; runs with other settings have other names in one storage."""
        known = self.path / "run.json"
        if known.exists() and self.begun:
            return json.loads(known.read_text())["study"]
        digest = sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()
        return f"{self.path.name}-{digest[:8]}"

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
        identity = json.loads((self.path / "run.json").read_text())["identity"]
        return identity[_FINGERPRINT]

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        try:
            return optuna.load_study(study_name=self.study_name, storage=self.storage)
        except KeyError as error:
            raise StudyError(
                f"The storage '{self.storage_url}' of the run '{self.path}' holds no study "
                f"'{self.study_name}'; run `querynas search` first."
            ) from error

    @cached_property
    def routes(self) -> dict[str, Route]:
        """The ways to a candidate, by their name in the study file."""
        dimension = self.data.gallery.dimension
        return {n: create_route(n, c, dimension) for n, c in self.config.spaces.items()}

    @cached_property
    def aligner(self) -> Aligner:
        """The alignment set-up shared by all candidates."""
        device = pick_device()
        size = max(route.largest_resolution for route in self.routes.values())
        return Aligner(
            data=self.data.training(size).to(device),
            val=self.data.val,
            loss=self.config.loss,
            seed=self.config.seed,
            device=device,
        )

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
        """Return a candidate's query model as it was scored."""
        trials = self.study.get_trials(deepcopy=False)
        metas = get_all_artifact_meta(trials[record.trial], storage=self.storage)
        if not metas:
            route = self.routes[record.route]
            route.prepare(self.aligner, self.shared)
            return route.candidate(record.architecture, self.aligner).model
        file = self.path / "models" / f"trial-{record.trial}.safetensors"
        if not file.exists():
            with self.artifacts.open_reader(metas[0].artifact_id) as weights:
                content = weights.read()
            write_atomically(file, lambda path: path.write_bytes(content))
        return load_model(file)

    def _identity(self) -> dict[str, Any]:
        """What must not change when a study is continued."""
        content = self.config.model_dump(mode="json")
        for field in _FREE:
            del content[field]
        content[_FINGERPRINT] = self.data.gallery.fingerprint
        return content


def _with_defaults(identity: dict[str, Any]) -> dict[str, Any]:
    """Add the settings that did not exist yet when a run was begun."""
    fingerprint = identity.pop(_FINGERPRINT)
    try:
        content = StudyConfig.model_validate(identity).model_dump(mode="json")
    except ValidationError:  # a setting is gone: say which below
        content = identity
    return {**content, _FINGERPRINT: fingerprint}
