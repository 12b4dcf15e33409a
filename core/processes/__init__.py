"""Generative processes, one file each."""

from core.processes.base import Process
from core.registry import Registry

registry: Registry[Process] = Registry("process", Process, __name__)
