"""What one step of a process may do, one kind a file; `tests/laws/test_transitions.py` holds their laws."""

from core.processes.transitions.base import Transition
from core.registry import Registry

registry: Registry[Transition] = Registry("transition", Transition, __name__)
