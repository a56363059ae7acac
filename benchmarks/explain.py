"""DeepSHAP: time and memory against the shap library, on a network where that is right; and Grad-CAM per image.

Times are processor times on one thread, which other work on the machine disturbs less."""
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np

from inspect_lib.explain.background import choose_background
from inspect_lib.explain.cam import grad_cam
from inspect_lib.explain.shap import deep_shap
from inspect_lib.explain.target import prepare_model, single_output

import torch
from torch import nn

SIDE, BACKGROUND, ROUNDS = 96, 32, 3


def processor_seconds(function: Callable) -> float:
    "Median of several calls, after one to warm up"
    def once(): start = time.process_time(); function(); return time.process_time() - start
    return float(np.median([once() for _ in range(1 + ROUNDS)][1:]))


def plain_network():
    "A network within the limits of the shap library: modules used once, pooling without overlap, nothing in place"
    torch.manual_seed(0)
    layers, widths = [], (3, 32, 64, 64, 128)
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128*(SIDE//16)**2, 1)).eval()


def explainer_of(variant: str) -> Callable:
    "A function that explains one image, with the background prepared"
    network = plain_network()
    images = torch.rand(BACKGROUND + 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    if variant == 'library':
        import shap
        explainer = shap.DeepExplainer(prepare_model(network), images[1:])
        return lambda: explainer.shap_values(images[:1], check_additivity=False)[0, ..., 0]
    background = choose_background(images[1:], BACKGROUND, np.random.default_rng(0))
    chunk = BACKGROUND if variant == 'at once' else 8
    explain = deep_shap(background, chunk, keep=variant == 'kept').prepare(network, single_output)
    return lambda: explain(network, images[0], single_output).values


def measure(variant: str):
    "Print time, memory and values as JSON; run in a process of its own, because peak memory is counted per process"
    warnings.simplefilter('ignore')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    explain = explainer_of(variant)
    seconds, values = processor_seconds(explain), explain()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024
    print(json.dumps(dict(seconds=seconds, megabytes=peak, values=np.asarray(values, float).ravel()[::997].tolist())))


def compare_with_library():
    "Each variant in a process of its own"
    results = {}
    for variant in ('library', 'at once', 'in chunks', 'kept'):
        done = subprocess.run([sys.executable, __file__, variant], capture_output=True, text=True, check=True)
        results[variant] = json.loads(done.stdout.splitlines()[-1])
    theirs = results['library']
    largest = np.abs(theirs['values']).max()
    for variant, own in results.items():
        difference = np.abs(np.subtract(own['values'], theirs['values'])).max()/largest
        print(f"{variant:10} {own['seconds']:6.2f} s, {own['megabytes']:6.0f} MB; library / it: {theirs['seconds']/own['seconds']:5.2f} in time, "
              f"{theirs['megabytes']/own['megabytes']:5.2f} in memory; largest difference of values {difference:.1e}")


def cam_per_image():
    "Grad-CAM against a forward pass"
    from inspect_lib.model.siamese import new_siamese
    image = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(1))
    first = lambda output: output[:, 0]
    for backbone, weights in (('inspect-tiny', 'own'), ('resnet50', '')):
        model = new_siamese(backbone, weights, 16).eval()
        with torch.no_grad(): forward = processor_seconds(lambda: model(image[None]))
        cam = processor_seconds(lambda: grad_cam()(model, image, first))
        print(f'{backbone:12} Grad-CAM {1e3*cam:5.0f} ms per image of 224 pixels; Grad-CAM / forward pass: {cam/forward:.1f}')


if __name__ == '__main__':
    torch.set_num_threads(1)
    if len(sys.argv) > 1: measure(sys.argv[1])
    else: compare_with_library(); cam_per_image()
