"""inspect-tiny: time per image against DINOv2-small (random weights, same computation), and its exports against torch."""
import tempfile
import time
from pathlib import Path

import numpy as np
from _timing import interleaved_seconds

from inspect_lib.core.seed import generator
from inspect_lib.net.dinov2 import dinov2_encoder
from inspect_lib.net.zoo import load_encoder
from inspect_lib.deploy.export import largest_cosine_difference, open_runner, quantise_onnx, write_onnx
from inspect_lib.net.trunk import SIDE, load_trunk
from inspect_lib.synth.piece import sample

ROUNDS, BATCH = 5, 8


def seconds_per_image(functions: dict, images) -> dict[str, float]:
    "Median seconds per image, in batches"
    batches = [images[i:i + BATCH] for i in range(0, len(images), BATCH)]
    times = interleaved_seconds({name: lambda f=f: [f(batch) for batch in batches] for name, f in functions.items()}, ROUNDS)
    return {name: seconds/len(images) for name, seconds in times.items()}


def compare_with_dinov2():
    "Encoders of one family of sizes"
    from transformers import Dinov2Config, Dinov2Model
    images = list(generator(0, 'pictures').integers(0, 256, (32, SIDE, SIDE, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        small = dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
        Dinov2Model(Dinov2Config(**small)).save_pretrained(folder)
        encoders = {name: load_encoder(name).encode for name in ('inspect-tiny', 'hog-colour', 'lbp')}
        times = seconds_per_image(encoders | {'dinov2-small': dinov2_encoder(Path(folder)).encode}, images)
    for name, seconds in times.items():
        print(f'{name:14} {1e3*seconds:7.2f} ms per image; dinov2-small / it: {times["dinov2-small"]/seconds:.2f}')


def compare_exports():
    "Runtimes and precisions of the same network"
    draw = lambda first, n: np.stack([sample(1, i, SIDE).images[0] for i in range(first, first + n)]).transpose(0, 3, 1, 2).astype(np.float32)/255
    images, calibration, trunk = draw(0, 32), draw(1000, 32), load_trunk('inspect-tiny')
    import torch
    from inspect_lib.net.trunk import embedding
    class Whole(torch.nn.Module):
        def __init__(self): super().__init__(); self.trunk = trunk
        def forward(self, x): return embedding(self.trunk, self.trunk(x))
    whole = Whole().eval()
    @torch.inference_mode()
    def direct(x): return whole(torch.from_numpy(x).contiguous(memory_format=torch.channels_last)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = write_onnx(whole, Path(folder)/'trunk.onnx', torch.zeros(2, 3, SIDE, SIDE), ['vectors'])
        small = quantise_onnx(path, Path(folder)/'int8.onnx', [calibration[i:i + 8] for i in range(0, 32, 8)])
        forms = {'torch fp32': direct} | {name: open_runner(path, name) for name in ('onnxruntime', 'openvino', 'openvino-bf16')}
        forms |= {'onnxruntime int8': open_runner(small), 'openvino int8': open_runner(small, 'openvino')}
        forms = {name: run if name == 'torch fp32' else (lambda x, run=run: run(x)['vectors']) for name, run in forms.items()}
        times, vectors = seconds_per_image(forms, images), {name: run(images) for name, run in forms.items()}
    for name, seconds in times.items():
        print(f'{name:17} {1e3*seconds:6.2f} ms; torch / it: {times["torch fp32"]/seconds:5.2f}; '
              f'largest cosine difference {largest_cosine_difference(vectors["torch fp32"], vectors[name]):.1e}')


def drawing_speed():
    "Whether training waits for its images: pieces drawn per second on one processor"
    import cv2
    cv2.setNumThreads(0)
    for size in (64, 96, 128):
        start = time.perf_counter(); [sample(2, i, size) for i in range(100)]
        print(f'{size} px: {100/(time.perf_counter() - start):.0f} pieces (two images each) per second and processor')


if __name__ == '__main__': compare_with_dinov2(); compare_exports(); drawing_speed()
