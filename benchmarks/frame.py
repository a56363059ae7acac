"""Frame files: time and size with light compression against none, for the same frame."""
import tempfile
from pathlib import Path

import numpy as np
from _timing import median_seconds

from inspect_lib.core.seed import generator
from inspect_lib.data.frame import read_frame, write_frame

SIZE, ROUNDS = 512, 20


def frame() -> dict:
    "A frame like a rendered one: smooth depth and normals, a noisy image, a mask"
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)/SIZE
    mask = ((x - .5)**2 + (y - .5)**2 < .1).astype(np.uint8)
    colors = (120 + 60*mask[..., None] + generator(0, 'frame').normal(0, 6, (SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)
    return dict(colors=colors, depth=x*.1 + .4, normals=np.dstack([x, y, 1 - x]), instance_segmaps=mask, category_id_segmaps=mask)


if __name__ == '__main__':
    arrays, costs = frame(), {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ('none', 'light'):
            path = Path(folder)/f'{kind}.hdf5'
            writing = median_seconds(lambda: write_frame(path, arrays, {}, compression=kind), ROUNDS)
            costs[kind] = writing, median_seconds(lambda: read_frame(path), ROUNDS), path.stat().st_size
    for name, a, b in zip(('write time', 'read time', 'size'), costs['light'], costs['none']): print(f'{name}, light / none: {a/b:.2f}')
