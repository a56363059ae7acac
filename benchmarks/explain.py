"""DeepSHAP: time and memory against the shap library's own, on a network where that is right; and Grad-CAM per picture.
Times are of the processor, on one thread: what else the machine does is not in them."""
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
from inspect_lib.explain.target import explainable, whole

import torch
from torch import nn

SIDE, BACKGROUND, ROUNDS = 96, 32, 3


def processor_seconds(function: Callable) -> float:
    "Median of some rounds, after one that does not count"
    def once(): start = time.process_time(); function(); return time.process_time() - start
    return float(np.median([once() for _ in range(1 + ROUNDS)][1:]))


def plain_network():
    "Modules that are used once, windows that do not overlap, nothing in place: what the library can do"
    torch.manual_seed(0)
    layers, widths = [], (3, 32, 64, 64, 128)
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128*(SIDE//16)**2, 1)).eval()


def explain_once(way: str):
    "A function that explains one picture, everything about the background prepared; and what it gives"
    network = plain_network()
    images = torch.rand(BACKGROUND + 1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    if way == 'library':
        import shap
        explainer = shap.DeepExplainer(explainable(network), images[1:])
        return lambda: explainer.shap_values(images[:1], check_additivity=False)[0, ..., 0]
    background = choose_background(images[1:], BACKGROUND, np.random.default_rng(0))
    chunk = BACKGROUND if way == 'at once' else 8
    explain = deep_shap(background, chunk, keep=way == 'kept').prepare(network, whole)
    return lambda: explain(network, images[0], whole).values


def measure(way: str):
    "In a process of its own, because the peak of memory is one of the process"
    warnings.simplefilter('ignore')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    explain = explain_once(way)
    seconds, values = processor_seconds(explain), explain()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024
    print(json.dumps(dict(seconds=seconds, megabytes=peak, values=np.asarray(values, float).ravel()[::997].tolist())))


def against_library():
    found = {}
    for way in ('library', 'at once', 'in chunks', 'kept'):
        done = subprocess.run([sys.executable, __file__, way], capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    theirs = found['library']
    largest = np.abs(theirs['values']).max()
    for way, own in found.items():
        apart = np.abs(np.subtract(own['values'], theirs['values'])).max()/largest
        print(f"{way:10} {own['seconds']:6.2f} s, {own['megabytes']:6.0f} MB; library/it {theirs['seconds']/own['seconds']:5.2f} in time, "
              f"{theirs['megabytes']/own['megabytes']:5.2f} in memory; values apart by {apart:.1e}")


def cam_per_picture():
    from inspect_lib.model.siamese import new_siamese
    image = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(1))
    first = lambda output: output[:, 0]
    for backbone, weights in (('inspect-tiny', 'own'), ('resnet50', '')):
        model = new_siamese(backbone, weights, 16).eval()
        with torch.no_grad(): forwards = processor_seconds(lambda: model(image[None]))
        cam = processor_seconds(lambda: grad_cam()(model, image, first))
        print(f'{backbone:12} Grad-CAM {1e3*cam:5.0f} ms per picture of 224 pixels, {cam/forwards:.1f} runs forwards')


if __name__ == '__main__':
    torch.set_num_threads(1)
    if len(sys.argv) > 1: measure(sys.argv[1])
    else: against_library(); cam_per_picture()
