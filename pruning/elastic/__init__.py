"""Any timm backbone as a supernet: its widths, depths and resolutions share its weights."""

from pruning.elastic.space import TimmElasticSpace
from pruning.elastic.supernet import TimmElasticSupernet

__all__ = ["TimmElasticSpace", "TimmElasticSupernet"]
