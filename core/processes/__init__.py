"""Generative processes, one file each; `base.py` states what each must promise.

A new one is one file here and one YAML in `configs/process/`; `tests/laws/test_processes.py` runs on it by itself.
"""

from core.processes.base import Process
from core.registry import Registry

registry: Registry[Process] = Registry("process", Process, __name__)
