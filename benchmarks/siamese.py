"""Siamese network: training images per second, with all pairs of a batch encoded once against pairs encoded one by one."""
import sys
import time

import numpy as np

from inspect_lib.core.seed import generator
from inspect_lib.data.augment import augment
from inspect_lib.net.batch import Pictures, batches # Before torch: it says how threads wait
import torch
from inspect_lib.model.siamese import new_siamese
from inspect_lib.model.siamese_training import pair_losses
from inspect_lib.net.device import to_tensor

ROUNDS, BATCH, N = 5, 24, 96
PLAN = dict(rotation=[-10, 10], horizontal_flip=.5, brightness=[.8, 1.2], noise=[0, 5])


def new_training(backbone: str, weights: str):
    "A network and its optimizer"
    model = new_siamese(backbone, weights).train()
    return model, torch.optim.AdamW(model.parameters(), 1e-4)


def optimize(optimizer, loss):
    "One step"
    optimizer.zero_grad(set_to_none=True); loss.backward(); optimizer.step()


def batch_pairs(train: Pictures, model, optimizer) -> int:
    "An epoch of ours: every image is encoded once, and all pairs of its batch are used"
    for batch in batches(train, PLAN, BATCH)(1): optimize(optimizer, pair_losses(model, batch)['loss'])
    return N


def single_pairs(train: Pictures, model, optimizer, margin: float = 1.) -> int:
    "An epoch of pairs: every image once with a partner, alternately of its own and of the other class; both are encoded"
    rng = generator(0, 'pairs')
    for rows in rng.permutation(N).reshape(-1, BATCH//2):
        same = np.arange(len(rows)) % 2 == 0
        partner = [rng.choice(np.flatnonzero((train.is_io == train.is_io[r]) == s)) for r, s in zip(rows, same)]
        views = [np.stack([augment(train.images[i], PLAN, rng)[0] for i in side]) for side in (rows, partner)]
        one, two = (model(to_tensor(view, torch.device("cpu"))) for view in views) # Two forward passes
        distance = ((one - two)**2).mean(1).add(1e-8).sqrt()
        same = torch.from_numpy(same)
        optimize(optimizer, distance[same].square().mean() + (margin - distance[~same]).relu().square().mean())
    return N


def main(side: int = 96):
    torch.set_num_threads(1)
    noise = generator(0, 'pictures').integers(0, 256, (N, side, side, 3), dtype=np.uint8)
    train = Pictures(noise, np.arange(N) % 2 == 0)
    for backbone, weights in (('inspect-tiny', 'own'), ('resnet50', '')):
        epochs = {'batch pairs': batch_pairs, 'single pairs': single_pairs}
        trainings, rates = {name: new_training(backbone, weights) for name in epochs}, {name: [] for name in epochs}
        for name, epoch in epochs.items(): epoch(train, *trainings[name]) # Warm up
        for _ in range(ROUNDS if backbone == 'inspect-tiny' else 2):
            for name, epoch in epochs.items(): # In turns, so that a drift of the machine affects both
                start = time.process_time()
                rates[name].append(epoch(train, *trainings[name])/(time.process_time() - start))
        rate = {name: float(np.median(values)) for name, values in rates.items()}
        pairs = {'batch pairs': (BATCH - 1)/2, 'single pairs': 1} # Per image
        for name, value in rate.items():
            print(f'{backbone}, {side} x {side}, {name}: {value:6.1f} training images and '
                  f'{value*pairs[name]:7.1f} pairs per second')
        print(f'{backbone}: batch pairs / single pairs {rate["batch pairs"]/rate["single pairs"]:.2f} (goal: at least 1.8)')


if __name__ == '__main__': main(*map(int, sys.argv[1:]))
