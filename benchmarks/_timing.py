"""How benchmarks here take time: medians, and side by side in turns, so that a machine that drifts drifts for all."""
import time
from collections.abc import Callable

import numpy as np


def seconds(function: Callable) -> float:
    "One call"
    start = time.perf_counter(); function()
    return time.perf_counter() - start


def median_seconds(function: Callable, rounds: int) -> float:
    "Median of some rounds"
    return float(np.median([seconds(function) for _ in range(rounds)]))


def in_turns(functions: dict[str, Callable], rounds: int) -> dict[str, float]:
    "Median seconds of each function, after one call of each that does not count"
    for function in functions.values(): function()
    times = [{name: seconds(function) for name, function in functions.items()} for _ in range(rounds)]
    return {name: float(np.median([one[name] for one in times])) for name in functions}
