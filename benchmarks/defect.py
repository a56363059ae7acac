"""One network with three heads beside three networks with one each: weights, and time for a picture on one core. Prints ratios.

    python benchmarks/defect.py [--side 600] [--backbone resnet50] [--attention] [--repeat 5]

The three are what the thesis on magnetic particle inspection (2023) compares with: ResNet-50 that classifies, its pyramid that segments, and
RetinaNet; none of them has attention, and with --attention they have the same as the one. All four take their turns within each round, so
that what else the machine does meets them alike.
"""
import argparse
import json
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
import time
from dataclasses import asdict, replace

import numpy as np
import torch

from inspect_lib.model.defect_aux_net import PUBLISHED, DefectAuxNet, millions


def networks(backbone: str, attention: str) -> dict[str, DefectAuxNet]:
    "The network of the thesis, and its three single-task twins"
    whole = replace(PUBLISHED, backbone=backbone)
    twins = {task: replace(whole, tasks=(task,), attention=attention) for task in whole.tasks}
    return {name: DefectAuxNet.build(asdict(config)).eval() for name, config in dict(one=whole, **twins).items()}


def seconds(model: DefectAuxNet, x: torch.Tensor) -> float:
    start = time.perf_counter()
    with torch.inference_mode(): model.outputs_of(x)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--side', type=int, default=600)
    parser.add_argument('--backbone', default='resnet50')
    parser.add_argument('--attention', action='store_true')
    parser.add_argument('--repeat', type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    models, x = networks(given.backbone, PUBLISHED.attention if given.attention else 'none'), torch.rand(1, 3, given.side, given.side).contiguous(memory_format=torch.channels_last)
    for model in models.values(): model.to(memory_format=torch.channels_last); seconds(model, x)
    rounds = [{name: seconds(model, x) for name, model in models.items()} for _ in range(given.repeat)]
    weights = {name: millions(model) for name, model in models.items()}
    three = lambda row: sum(value for name, value in row.items() if name != 'one')
    saved = np.array([1 - row['one']/three(row) for row in rounds])
    for name in models: print(f'{name:9} {weights[name]:6.1f} million weights, {np.median([row[name] for row in rounds]):.3f} s')
    print(json.dumps(dict(side=given.side, backbone=given.backbone, attention=given.attention, fewer_weights=round(1 - weights['one']/three(weights), 3),
                          less_time=round(float(np.median(saved)), 3), less_time_range=[round(float(v), 3) for v in (saved.min(), saved.max())])))


if __name__ == '__main__': main()
