from .card import Card, read_card, write_card
from .compare import Comparison, compare_files
from .evaluate import Evaluation, evaluate_file
from .model_file import Deployed, load_deployed
from .opening import open_query_model
from .profiles import Profile, profile
from .write import Exported, Source, write_model

__all__ = [
    "Card",
    "Comparison",
    "Deployed",
    "Evaluation",
    "Exported",
    "Profile",
    "Source",
    "compare_files",
    "evaluate_file",
    "load_deployed",
    "open_query_model",
    "profile",
    "read_card",
    "write_card",
    "write_model",
]
