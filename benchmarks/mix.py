"""Detectors and generators: training steps per second on one thread, and Faster R-CNN against torchvision's settings."""
import sys

from types import SimpleNamespace

import numpy as np

from inspect_lib.core.seed import generator
from inspect_lib.data.box import boxes
from inspect_lib.model.detector import Detector, make_batch, new_detector
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign
from inspect_lib.net.pyramid import LEVELS
from inspect_lib.net.zoo import load_pyramid
from inspect_lib.model.pix2pix import Pix2Pix, batches, optimizer_of
from _timing import interleaved_seconds

ROUNDS, PICTURES, DIGITS, CLASSES = 7, 4, 11, tuple('0123456789')


def line(i: int, side: int):
    "Noise with a line of digits' boxes, as long and as high as on a billet"
    rng = generator(0, 'picture', i)
    width, height = .05*side, .08*side
    x, y = .1*side + np.arange(DIGITS)*.07*side, rng.uniform(.2, .7)*side
    xyxy = np.stack([x, x*0 + y, x + width, x*0 + y + height], 1)
    return rng.integers(0, 256, (side, side, 3), dtype=np.uint8), boxes(xyxy, rng.choice(CLASSES, DIGITS))


def torchvision_detector(side: int, backbone: str):
    "Faster R-CNN with torchvision's settings, over the same feature maps and anchors"
    ours = new_detector('faster-rcnn', dict(classes=CLASSES, backbone=backbone, side=side, min_anchor=side//16)).network
    pool = MultiScaleRoIAlign(list(LEVELS), output_size=7, sampling_ratio=2)
    return FasterRCNN(load_pyramid(backbone), len(CLASSES) + 1, min_size=side, max_size=side, box_roi_pool=pool,
                      rpn_anchor_generator=ours.rpn.anchor_generator)


def losses_of(model, batch: dict) -> dict:
    "The same losses of a network of torchvision's that follows no contract"
    return Detector.training_step(SimpleNamespace(network=model, device=torch.device('cpu')), batch)


def step_of(model, batch: dict, loss=lambda model, batch: model.training_step(batch)):
    "A training step as a function"
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    def step():
        optimizer.zero_grad(set_to_none=True); loss(model.train(), batch)['loss'].backward(); optimizer.step()
    return step


def adversarial(side: int, width: int, levels: int):
    "A step of the discriminator and one of the generator"
    rng = generator(0, 'masks')
    masks, pictures = rng.random((32, side, side), dtype=np.float32), rng.random((32, side, side, 3), dtype=np.float32)
    model, both = Pix2Pix.build(dict(width=width, levels=levels)), list(batches(masks, pictures, 0, 1, 8, 1))
    optimizer = optimizer_of(model)
    def step():
        for batch in both: optimizer.zero_grad(); model.training_step(batch)['loss'].backward(); optimizer.step()
    return step


def main(side: int = 192):
    torch.set_num_threads(1)
    batch = make_batch(*zip(*(line(i, side) for i in range(PICTURES))), CLASSES)
    detector = lambda kind, backbone: step_of(new_detector(kind, dict(classes=CLASSES, backbone=backbone, side=side, min_anchor=side//16)), batch)
    detectors = {'faster-rcnn over inspect-tiny': detector('faster-rcnn', 'inspect-tiny'),
                 'retinanet over inspect-tiny': detector('retinanet', 'inspect-tiny'),
                 "torchvision's settings over inspect-tiny": step_of(torchvision_detector(side, 'inspect-tiny'), batch, losses_of),
                 'faster-rcnn over resnet18': detector('faster-rcnn', 'resnet18')}
    generators = {'pix2pix, 32 px, width 16': adversarial(32, 16, 4), 'pix2pix, 64 px, width 32': adversarial(64, 32, 5)}
    for batch_name, models in ((f'{PICTURES} images of {side} x {side}', detectors), ('8 pairs', generators)):
        times = interleaved_seconds(models, ROUNDS)
        for name, seconds in times.items(): print(f'{name}: {1/seconds:5.2f} steps per second ({batch_name})')
        if models is detectors:
            ours, theirs = (times[name] for name in list(detectors)[0:3:2])
            print(f"torchvision's settings / ours: {theirs/ours:.2f}")


if __name__ == '__main__': main(*map(int, sys.argv[1:]))
