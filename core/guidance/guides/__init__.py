"""Ways to tilt a transition towards objectives, one file each."""

from core.guidance.guides.base import Guide
from core.registry import Registry

registry: Registry[Guide] = Registry("guide", Guide, __name__)
