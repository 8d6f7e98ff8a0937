"""The teachers: frozen video autoencoders behind one vocabulary. A family is one file in this folder."""

import importlib
import pkgutil

from nas.teachers.registry import (
    Release,
    list_releases,
    list_teachers,
    load_teacher,
    published_latents,
    published_repository,
    register_release,
    register_teacher,
    unpublished_teachers,
    without_weights,
)
from nas.teachers.teacher import Tap, Teacher

__all__ = [
    "Release",
    "Tap",
    "Teacher",
    "list_releases",
    "list_teachers",
    "load_teacher",
    "published_latents",
    "published_repository",
    "register_release",
    "register_teacher",
    "unpublished_teachers",
    "without_weights",
]

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    # The command `python -m nas.teachers` is no teacher.
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)
