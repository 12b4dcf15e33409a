"""Numbers about a whole set of samples, one file each."""

from core.registry import Registry
from domains.base import Metric

registry: Registry[Metric] = Registry("metric", Metric, __name__)
