"""Encoders: time per picture of the descriptor that needs no weights against DINOv2-small (random weights, same computation)."""
import tempfile
import time
from pathlib import Path

import numpy as np

from inspect_lib.core.seed import generator
from inspect_lib.net.encoder import descriptor, dinov2

if __name__ == '__main__':
    from transformers import Dinov2Config, Dinov2Model
    pictures = list(generator(0, 'pictures').integers(0, 256, (32, 224, 224, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        small = dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
        Dinov2Model(Dinov2Config(**small)).save_pretrained(folder)
        encoders, times = dict(descriptor=descriptor(), dinov2_small=dinov2(Path(folder))), dict(descriptor=[], dinov2_small=[])
        for _ in range(5): # In turns, so that a machine that drifts drifts for both
            for name, encoder in encoders.items():
                start = time.perf_counter(); encoder.encode(pictures, batch_size=8); times[name].append((time.perf_counter() - start)/len(pictures))
    a, b = (np.median(times[name]) for name in encoders)
    print(f'ms per picture: descriptor {1e3*a:.1f}, DINOv2-small {1e3*b:.1f}; DINOv2-small / descriptor: {b/a:.2f}')
