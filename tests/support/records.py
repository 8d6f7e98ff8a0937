"""Latencies that nothing was run for."""

import dataclasses

from nas.latency import LatencyRecord


def a_record(**changes: object) -> LatencyRecord:
    """A predicted one, with other values where they are given."""
    record = LatencyRecord(
        ms_per_frame=21.66,
        kind="predicted",
        device="iphone-16-pro",
        method="sum over operations",
        height=512,
        width=512,
        num_frames=17,
        dtype="float16",
        error=0.241,
        by_stage={"stem": 1.66, "stage0": 12.0, "head": 8.0},
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]
