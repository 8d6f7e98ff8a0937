"""Which extra of this package installs what a command needs."""

EXTRA_OF = {
    "accelerate": "search",
    "av": "search",
    "coremltools": "coreml",
    "filelock": "search",
    "fvcore": "testing",
    "jinja2": "search",
    "lpips": "search",
    "optuna": "search",
    "plotly": "search",
    "psycopg": "scale",
    "ray": "scale",
    "requests": "agent",
    "rich": "search",
    "scipy": "search",
    "sqlalchemy": "search",
    "starlette": "agent",
    "torchvision": "search",
    "uvicorn": "agent",
}
"""Import name of every optional package -> the extra that is recommended to whoever lacks it."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """One line that says what is not installed and how to install it; None if it belongs to no extra."""
    # A missing package is reported by its own name; a name with a dot is a module that an installed package lacks.
    extra = EXTRA_OF.get(error.name or "")
    if extra is None:
        return None
    return f"this needs {error.name}, which is not installed: pip install 'turbo-vaed-nas[{extra}]'"
