"""Running out of memory, recognised in what an operation raised. Needs no torch."""

_SAID = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""What the allocators of CUDA, Apple's GPUs and the CPU say, and CUDA's libraries, which have their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of whatever device, has run out."""
    if isinstance(error, RuntimeError):
        return type(error).__name__ == "OutOfMemoryError" or any(each in str(error) for each in _SAID)
    return isinstance(error, MemoryError)
