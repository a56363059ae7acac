"""Twins: training pictures per second, pairs mined in a batch that is encoded once, against pairs encoded one by one."""
import sys
import time

import numpy as np

from inspect_lib.core.seed import generator
from inspect_lib.data.augment import augment
from inspect_lib.net.batch import Pictures, batches # Before torch: it says how threads wait
import torch
from inspect_lib.model.siamese import new_siamese
from inspect_lib.model.siamese_training import teach
from inspect_lib.net.trunk import tensor

ROUNDS, BATCH, N = 5, 24, 96
PLAN = dict(rotation=[-10, 10], horizontal_flip=.5, brightness=[.8, 1.2], noise=[0, 5])


def learner(backbone: str, weights: str):
    twins = new_siamese(backbone, weights).train()
    return twins, torch.optim.AdamW(twins.parameters(), 1e-4)


def learn(optimizer, loss):
    optimizer.zero_grad(set_to_none=True); loss.backward(); optimizer.step()


def mined(known: Pictures, twins, optimizer) -> int:
    "An epoch of ours: every picture is encoded once, all pairs of its batch are used"
    for batch in batches(known, PLAN, BATCH)(1): learn(optimizer, teach(twins, batch)['loss'])
    return N


def naive(known: Pictures, twins, optimizer, margin: float = 1.) -> int:
    "An epoch of pairs: every picture once with a partner, by turns of its own and of the other class; both are encoded"
    rng = generator(0, 'pairs')
    for rows in rng.permutation(N).reshape(-1, BATCH//2):
        same = np.arange(len(rows)) % 2 == 0
        partner = [rng.choice(np.flatnonzero((known.is_io == known.is_io[r]) == s)) for r, s in zip(rows, same)]
        views = [np.stack([augment(known.images[i], PLAN, rng)[0] for i in side]) for side in (rows, partner)]
        one, two = (twins(tensor(view)) for view in views) # Each of the twins makes its own pass
        distance = ((one - two)**2).mean(1).add(1e-8).sqrt()
        same = torch.from_numpy(same)
        learn(optimizer, distance[same].square().mean() + (margin - distance[~same]).relu().square().mean())
    return N


def main(side: int = 96):
    torch.set_num_threads(1)
    noise = generator(0, 'pictures').integers(0, 256, (N, side, side, 3), dtype=np.uint8)
    known = Pictures(noise, np.arange(N) % 2 == 0)
    for backbone, weights in (('inspect-tiny', 'own'), ('resnet50', '')):
        ways = {'mined': mined, 'naive': naive}
        learners, speed = {name: learner(backbone, weights) for name in ways}, {name: [] for name in ways}
        for name, way in ways.items(): way(known, *learners[name]) # Warm
        for _ in range(ROUNDS if backbone == 'inspect-tiny' else 2):
            for name, way in ways.items(): # In turns, so that a machine that drifts drifts for both
                start = time.process_time()
                speed[name].append(way(known, *learners[name])/(time.process_time() - start))
        found = {name: float(np.median(values)) for name, values in speed.items()}
        pairs = {'mined': BATCH*(BATCH - 1)/2/BATCH, 'naive': 1}
        for name, value in found.items():
            print(f'{backbone}, {side} x {side}, {name}: {value:6.1f} training pictures and '
                  f'{value*pairs[name]:7.1f} pairs per second')
        print(f'{backbone}: mined/naive {found["mined"]/found["naive"]:.2f} (goal: at least 1.8)')


if __name__ == '__main__': main(*map(int, sys.argv[1:]))
