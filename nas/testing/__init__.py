"""The contracts of parts, search spaces and teachers, for tests of packages with plugins.

    import pytest
    import my_package.blocks
    from nas.testing import CHECKS, block_cases

    @pytest.mark.parametrize(("config", "check"), **block_cases("my_block"))
    def test_contract(config, check):
        CHECKS[check](config)

Without pytest `check_block("my_block")` runs the same. Nothing here imports pytest; fvcore and coremltools, which two
checks of parts need, are in the extra `testing`.
"""

from nas.testing.block_cases import block_cases, check_block
from nas.testing.block_contract import CHECKS
from nas.testing.space_contract import LATENTS, SPACE_CHECKS, check_space
from nas.testing.teacher_contract import TEACHER_CHECKS, check_teacher

__all__ = [
    "CHECKS",
    "LATENTS",
    "SPACE_CHECKS",
    "TEACHER_CHECKS",
    "block_cases",
    "check_block",
    "check_space",
    "check_teacher",
]
