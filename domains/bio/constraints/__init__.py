"""Hard rules of molecules, one file each."""

from core.guidance.constraints.base import Constraint
from core.registry import Registry

registry: Registry[Constraint] = Registry("constraint", Constraint, __name__)
