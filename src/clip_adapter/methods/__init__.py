"""One file per method, each opening with its citation and formula. They never import each other."""

from clip_adapter.methods.base import Method, get_method, make_method, method_names, register
from clip_adapter.task import FewShotTask

__all__ = ["FewShotTask", "Method", "get_method", "make_method", "method_names", "register"]
