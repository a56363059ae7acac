"""inspect-tiny: time per picture against DINOv2-small (random weights, same computation), and its exported forms against torch."""
import tempfile
import time
from pathlib import Path

import numpy as np
from _timing import in_turns

from inspect_lib.core.seed import generator
from inspect_lib.net.dinov2 import dinov2
from inspect_lib.net.zoo import load_encoder
from inspect_lib.deploy.export import export_onnx, largest_cosine_difference, open_runner, quantise_onnx
from inspect_lib.net.trunk import SIDE, load_trunk
from inspect_lib.synth.piece import sample

ROUNDS, BATCH = 5, 8


def per_picture(functions: dict, pictures) -> dict[str, float]:
    "Median seconds per picture, in batches"
    batches = [pictures[i:i + BATCH] for i in range(0, len(pictures), BATCH)]
    found = in_turns({name: lambda f=f: [f(batch) for batch in batches] for name, f in functions.items()}, ROUNDS)
    return {name: seconds/len(pictures) for name, seconds in found.items()}


def against_dinov2():
    from transformers import Dinov2Config, Dinov2Model
    pictures = list(generator(0, 'pictures').integers(0, 256, (32, SIDE, SIDE, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        small = dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
        Dinov2Model(Dinov2Config(**small)).save_pretrained(folder)
        encoders = {name: load_encoder(name).encode for name in ('inspect-tiny', 'hog-colour', 'lbp')}
        found = per_picture(encoders | {'dinov2-small': dinov2(Path(folder)).encode}, pictures)
    for name, seconds in found.items():
        print(f'{name:14} {1e3*seconds:7.2f} ms per picture; dinov2-small takes {found["dinov2-small"]/seconds:.2f} times as long')


def exported():
    draw = lambda first, n: np.stack([sample(1, i, SIDE).images[0] for i in range(first, first + n)]).transpose(0, 3, 1, 2).astype(np.float32)/255
    pictures, ranges, trunk = draw(0, 32), draw(1000, 32), load_trunk('inspect-tiny')
    import torch
    from inspect_lib.net.trunk import embedding
    @torch.inference_mode()
    def direct(x): return embedding(trunk, trunk(torch.from_numpy(x).contiguous(memory_format=torch.channels_last))).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(trunk, Path(folder)/'trunk.onnx')
        small = quantise_onnx(path, Path(folder)/'int8.onnx', [ranges[i:i + 8] for i in range(0, 32, 8)])
        forms = {'torch fp32': direct} | {name: open_runner(path, name) for name in ('onnxruntime', 'openvino', 'openvino-bf16')}
        forms |= {'onnxruntime int8': open_runner(small), 'openvino int8': open_runner(small, 'openvino')}
        found, vectors = per_picture(forms, pictures), {name: run(pictures) for name, run in forms.items()}
    for name, seconds in found.items():
        print(f'{name:17} {1e3*seconds:6.2f} ms; torch/it {found["torch fp32"]/seconds:5.2f}; '
              f'largest cosine difference {largest_cosine_difference(vectors["torch fp32"], vectors[name]):.1e}')


def drawing():
    "Whether learning waits for drawing: pieces per second on one processor"
    import cv2
    cv2.setNumThreads(0)
    for size in (64, 96, 128):
        start = time.perf_counter(); [sample(2, i, size) for i in range(100)]
        print(f'{size} px: {100/(time.perf_counter() - start):.0f} pieces (two pictures each) per second and processor')


if __name__ == '__main__': against_dinov2(); exported(); drawing()
