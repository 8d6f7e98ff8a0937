"""The teachers: frozen video autoencoders behind one vocabulary. A family is one file in this folder."""

import importlib
import pkgutil

from nas.teachers.teacher import Tap, Teacher, list_teachers, load_teacher, register_teacher

__all__ = ["Tap", "Teacher", "list_teachers", "load_teacher", "register_teacher"]

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)
