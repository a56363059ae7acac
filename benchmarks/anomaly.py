"""Patch anomaly maps: time and memory of a coreset bank against a bank of every patch."""
import tracemalloc

import numpy as np
from _timing import median_seconds, seconds

from inspect_lib.core.seed import generator
from inspect_lib.model.patchcore import Bank, PatchCoreConfig, coreset, nearest

POOL, SIZE, CELLS, CHANNELS, ROUNDS = 50_000, 2000, 1024, 384, 5


if __name__ == '__main__':
    rng = generator(0, 'cells')
    unit = lambda vectors: (vectors/np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pool = unit(rng.normal(0, 1, (POOL, 32)) @ rng.normal(0, 1, (32, CHANNELS))) # Features lie in few dimensions
    query = unit(rng.normal(0, 1, (CELLS, 32)) @ rng.normal(0, 1, (32, CHANNELS)))
    tracemalloc.start()
    rows = coreset(pool, SIZE, generator(0, 'coreset'))
    peak = tracemalloc.get_traced_memory()[1]/1e6; tracemalloc.stop()
    selection = seconds(lambda: coreset(pool, SIZE, generator(0, 'coreset'))) # Not while memory is traced
    banks = {name: Bank({}, PatchCoreConfig(), vectors, {}) for name, vectors in (('coreset', pool[rows]), ('every cell', pool))}
    times = {name: median_seconds(lambda: nearest(query, bank), ROUNDS) for name, bank in banks.items()}
    print(f'coreset: {SIZE} of {POOL} cells with {CHANNELS} channels in {selection:.1f} s, {peak:.0f} MB beside the pool')
    print(f"a picture of {CELLS} cells: coreset {1e3*times['coreset']:.0f} ms and {pool[rows].nbytes/1e6:.1f} MB, "
          f"every cell {1e3*times['every cell']:.0f} ms and {pool.nbytes/1e6:.1f} MB; "
          f"every cell / coreset: {times['every cell']/times['coreset']:.1f}")
