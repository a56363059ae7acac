"""Frame files and exports: their cost against that of rendering the frame.

Every line holds two ratios: of wall time, and of processor time, which other work on the machine disturbs less."""
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _timing import interleaved_seconds

from inspect_lib.formats.annotation import read_annotations, to_rle
from inspect_lib.formats.export import FORMATS, export_frames, verify_export
from inspect_lib.data.frame import COMPRESSION, read_frame, write_frame
from inspect_lib.render.render_set import render_set

USE_CASE, CONFIG = sys.argv[1] if len(sys.argv) > 1 else 'floating', {'camera': {'resolution': [224, 224]}, 'samples': 8}
FEW, MANY, ROUNDS = 2, 26, 5


def clocks() -> np.ndarray: # Seconds: wall, and processor including that of ended child processes
    "Read both clocks"
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([time.perf_counter(), time.process_time() + ended.ru_utime + ended.ru_stime])


def cost(function: Callable) -> np.ndarray:
    "Time one call by both clocks"
    start = clocks(); function()
    return clocks() - start


def per_frame(function: Callable, n: int) -> np.ndarray: return np.median([cost(function) for _ in range(ROUNDS)], 0)/n


def rendered(folder: Path) -> tuple[list[Path], np.ndarray]:
    "Frames, and the cost of one: between few and many frames, the start of Blender and the loading of the scene cancel out"
    took = {n: cost(lambda: render_set(USE_CASE, CONFIG, 0, range(n), folder/str(n), workers=1)) for n in (FEW, MANY)}
    return sorted((folder/str(MANY)).glob('*.hdf5')), (took[MANY] - took[FEW])/(MANY - FEW)


def written(paths: list[Path], folder: Path, compression: str) -> np.ndarray:
    "The cost of writing one frame"
    frames = [read_frame(p) for p in paths]
    def write():
        for i, f in enumerate(frames): write_frame(folder/f'{i}.hdf5', f.arrays, f.draw, f.attributes, compression)
    return per_frame(write, len(frames))


def encode_mask() -> dict[str, float]:
    "Seconds to encode the mask of a ring of 60 pixels in an image of four million: from its bounding box, and from all pixels"
    segmap = np.zeros((2000, 2000), np.uint8)
    v, u = np.ogrid[:60, :60]
    segmap[900:960, 900:960] = abs(np.hypot(u - 30, v - 30) - 20) < 8
    return interleaved_seconds(dict(box=lambda: to_rle(segmap[900:960, 900:960] == 1, segmap.shape, (900, 900)),
                                   all=lambda: to_rle(segmap == 1)), ROUNDS)


def print_ratio(name: str, ratio: np.ndarray, note: str = ''): print(f'{name:44} {ratio[0]:.4f} wall, {ratio[1]:.4f} processor{note}')


if __name__ == '__main__':
    os.environ['TQDM_DISABLE'] = '1'
    with tempfile.TemporaryDirectory() as home:
        home, number = Path(home), iter(range(10_000))
        paths, total = rendered(home)
        n, files = len(paths), {kind: written(paths, home/kind, kind) for kind in COMPRESSION}
        rendering = total - files['none']
        print(f'({USE_CASE}: {1e3*rendering[0]:.0f} ms per frame, {1e3*rendering[1]:.0f} ms of a processor, {CONFIG})', file=sys.stderr)
        for kind, file in files.items(): print_ratio(f'frame file, {kind} / rendering', file/rendering)
        reading, annotations = per_frame(lambda: read_annotations(paths), n), read_annotations(paths)
        for name in FORMATS:
            if name == 'bop' and 'pose' not in read_frame(paths[0], ()).attributes[-1]: continue
            export = per_frame(lambda: export_frames(annotations, home/f'{next(number)}', [name]), n)
            last = home/f'{next(number) - 1}'
            print_ratio(f'{name} / rendering', (reading + export)/rendering)
            print_ratio(f'{name}, read back and compared / rendering', per_frame(lambda: verify_export(annotations, last, name), n)/rendering)
            if name == 'coco': print_ratio('frame file and coco / rendering', (files['none'] + reading + export)/rendering, ' (goal: at most 0.03)')
    mask = encode_mask()
    print(f'mask of a small object in a large image, from its box / from all pixels: {mask["box"]/mask["all"]:.4f}')
