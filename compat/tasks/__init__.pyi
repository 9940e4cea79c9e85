from .further import embed_unlabelled, open_unlabelled
from .retrieval import Judge, RetrievalTask
from .split import SplitConfig
from .study_data import StudyData, load_study_data
from .training_set import TrainingSet
from .unlabelled import UnlabelledConfig

__all__ = [
    "Judge",
    "RetrievalTask",
    "SplitConfig",
    "StudyData",
    "TrainingSet",
    "UnlabelledConfig",
    "embed_unlabelled",
    "load_study_data",
    "open_unlabelled",
]
