from .retrieval import Judge, RetrievalTask
from .split import SplitConfig
from .study_data import StudyData, load_study_data
from .training_set import TrainingSet

__all__ = [
    "Judge",
    "RetrievalTask",
    "SplitConfig",
    "StudyData",
    "TrainingSet",
    "load_study_data",
]
