"""The contract over every option of a part."""

from typing import Any

from blocks import BlockConfig, get_block
from nas.testing.block_contract import CHECKS
from nas.testing.block_parts import each_option


def check_block(name: str) -> None:
    """Run every check on the default of a registered part and on every other value of every option.

    Raises:
        AssertionError: a promise is broken; names the part, its options and geometry, and what is wrong.
        ValueError: no part is registered under this name.
    """
    for config in each_option(get_block(name).Config()):
        for check in CHECKS.values():
            check(config)


def block_cases(name: str) -> dict[str, Any]:
    """The same as single cases, as keyword arguments of `pytest.mark.parametrize(("config", "check"), ...)`."""
    cases = [(config, check) for config in each_option(get_block(name).Config()) for check in CHECKS]
    return {"argvalues": cases, "ids": [f"{describe_options(config)}-{check}" for config, check in cases]}


def describe_options(config: BlockConfig) -> str:
    """ "my_block-kernel_size=3,norm=rms"."""
    options = ",".join(f"{key}={value}" for key, value in config.to_dict().items() if key != "name")
    return f"{config.name}-{options}"
