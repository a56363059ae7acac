"""Novelty: how often new pictures of known parts are withheld, and how often aliens are, on the real sets of the data folder."""
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, zoom

from inspect_lib.core.image import resize
from inspect_lib.core.seed import generator
from inspect_lib.data.folder import read_folder, read_picture
from inspect_lib.net.novelty import learn_novelty

SETS, SIDE, SEEDS = dict(casting='IO', magnetic_tile='Free', neu_det=''), 128, 5
CHOSEN_ON = 500 # Pictures of each set, by groups, on which the features and the margin were chosen: left out here


def plain(rng: np.random.Generator) -> dict[str, np.ndarray]:
    "What no line shows"
    y, x = np.mgrid[:SIDE, :SIDE]
    rgb = lambda values: np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    flat = {name: rgb(np.full((SIDE, SIDE), v)) for name, v in dict(black=0, white=255, grey=128).items()}
    noise = dict(lens_cap=rgb(np.abs(rng.normal(0, 2, (SIDE, SIDE)))), grey_noise=rgb(rng.normal(128, 3, (SIDE, SIDE))),
                 noise=rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), clouds=rgb(128 + 60*zoom(rng.normal(size=(16, 16)), 8, order=1)))
    drawn = dict(stripes=rgb(255*(x//8 % 2)), fine=rgb(255*(x//2 % 2)), squares=rgb(255*((x//16 + y//16) % 2)), ramp=rgb(2*x),
                 red=np.dstack([rgb(np.full((SIDE, SIDE), 200))[..., :1], *[np.zeros((SIDE, SIDE, 1), np.uint8)]*2]))
    return flat | noise | drawn


def changed(image: np.ndarray) -> dict[str, np.ndarray]:
    "The part itself in another light, colour or focus"
    scaled = lambda factor: (image*np.asarray(factor)).clip(0, 255).astype(np.uint8)
    blurred = np.stack([gaussian_filter(image[..., c].astype(float), 5) for c in range(3)], -1).astype(np.uint8)
    return {'negative': 255 - image, 'light x 0.3': scaled(.3), 'light x 0.6': scaled(.6), 'light x 2': scaled(2.),
            'red light': scaled([1.2, .7, .7]), 'out of focus': blurred}


def fresh(folder: Path) -> tuple[list[np.ndarray], pd.DataFrame]:
    "The pictures of a set that no choice was made on"
    table = read_folder(folder)
    order = {g: i for i, g in enumerate(np.random.default_rng(0).permutation(table.group.unique()))}
    table = table.iloc[np.argsort(table.group.map(order).to_numpy(), kind='stable')]
    table = table[~table.group.isin(set(table.group.head(CHOSEN_ON)))].reset_index(drop=True)
    return [resize(read_picture(p), (SIDE, SIDE)) for p in table.image_path], table


def measure(images: list, table: pd.DataFrame, good: str, others: list, share: float, seed: int) -> dict:
    "Shares that are withheld when a share of the groups is known"
    rng = generator(seed, 'novelty')
    groups = rng.permutation(table.group.unique())
    is_known = table.group.isin(set(groups[:max(2, round(share*len(groups)))])).to_numpy()
    novelty = learn_novelty([images[i] for i in np.flatnonzero(is_known)], table.group[is_known])
    withheld = lambda pictures: float(1 - novelty.knows(pictures).mean())
    is_good, new = (table.gt_label == good).to_numpy(), np.flatnonzero(~is_known)
    row = dict(groups=novelty.groups, pictures=novelty.pictures, new=withheld(images[i] for i in new))
    if good: row |= {'new, good': withheld(images[i] for i in new if is_good[i]), 'new, defective': withheld(images[i] for i in new if not is_good[i])}
    row |= {'plain aliens': withheld(plain(rng).values()), 'other products': withheld(others)}
    views = [changed(images[i]) for i in rng.permutation(new)[:30]]
    return row | {name: withheld(view[name] for view in views) for name in views[0]}


def main(data: str):
    loaded = {name: fresh(Path(data)/name) for name in SETS}
    for name, (images, table) in loaded.items():
        others = [image for other, (pictures, _) in loaded.items() if other != name for image in pictures[:100]]
        for share in (.15, .5):
            rows = pd.DataFrame([measure(images, table, SETS[name], others, share, seed) for seed in range(SEEDS)])
            print(f"{name}, {rows.groups.mean():.0f} groups known ({rows.pictures.mean():.0f} pictures), mean of {SEEDS} seeds (largest):")
            print('  ' + '; '.join(f'{key} {100*rows[key].mean():.1f} % ({100*rows[key].max():.1f})' for key in rows.columns[2:]))


if __name__ == '__main__': main(*sys.argv[1:])
