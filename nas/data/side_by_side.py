"""What a teacher is asked for several clips, side by side: on a CPU in threads, each with a teacher of its own.

Small convolutions gain little by several threads each. Models keep state while they run (Wan's the frames before), so
every thread has a copy.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

import torch

from nas.data.limits import memory_of_a_crop
from nas.data.settings import TargetSettings
from nas.machine.memory import memory_limit
from nas.machine.threads import usable_cores
from nas.teachers import Teacher

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _StoppedError(Exception):
    """Nobody waits for the result any more."""


def most_teachers(teacher: Teacher, settings: TargetSettings) -> int:
    """How many copies may compute crops at once: one for each core, in half of the memory; on a GPU one.

    Raises:
        UserError: there is too little memory for one.
    """
    needed = memory_of_a_crop(teacher, settings.num_frames, settings.crop, settings.taps, settings.frames)
    if teacher.device.type != "cpu":
        return 1
    return max(1, min(usable_cores(), memory_limit(teacher.device) // (2 * needed)))


def each_with_a_teacher(
    teacher: Teacher, items: Sequence[_Item], compute: Callable[[Teacher, _Item], _Result], count: int
) -> list[_Result]:
    """`compute(teacher, item)` of each item, in this order. The results do not depend on `count` from 2 on.

    Where one raises, or the caller is interrupted, the others end at the next module of their model.

    Args:
        teacher: what is copied; with one copy it computes itself, with as many threads as PyTorch has.
        items: what is computed for.
        compute: called by several threads.
        count: copies of the teacher, and threads.
    """
    count = min(count, len(items))
    if count <= 1:
        return [compute(teacher, item) for item in items]
    stop, free = Event(), SimpleQueue[Teacher]()
    for _ in range(count):
        free.put(_stoppable_copy(teacher, stop))

    def compute_one(item: _Item) -> _Result:
        torch.set_num_threads(1)  # of this thread
        mine = free.get()
        try:
            return compute(mine, item)
        finally:
            free.put(mine)

    threads, pool = torch.get_num_threads(), ThreadPoolExecutor(count)
    try:
        return list(pool.map(compute_one, items))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _stoppable_copy(teacher: Teacher, stop: Event) -> Teacher:
    def refuse(module: torch.nn.Module, inputs: Any) -> None:
        if stop.is_set():
            raise _StoppedError

    teacher.model  # noqa: B018  # so that it is loaded once
    copied = copy.deepcopy(teacher)
    for module in copied.model.modules():
        module.register_forward_pre_hook(refuse)
    return copied
