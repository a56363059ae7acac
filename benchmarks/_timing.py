"""Median times for benchmarks. Functions that are compared run in turns, so that a drift of the machine affects all alike."""
import time
from collections.abc import Callable

import numpy as np


def seconds(function: Callable) -> float:
    "Time one call"
    start = time.perf_counter(); function()
    return time.perf_counter() - start


def median_seconds(function: Callable, rounds: int) -> float:
    "Median time of several calls"
    return float(np.median([seconds(function) for _ in range(rounds)]))


def interleaved_seconds(functions: dict[str, Callable], rounds: int) -> dict[str, float]:
    "Median time of each function, called in turns after one call of each to warm up"
    for function in functions.values(): function()
    times = [{name: seconds(function) for name, function in functions.items()} for _ in range(rounds)]
    return {name: float(np.median([sample[name] for sample in times])) for name in functions}
