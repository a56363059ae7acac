"A use case for `test_visibility`: a ring that a wall hides wholly, in part, or not; its label is its category's name."
import numpy as np

from inspect_lib.core.constraint import check_config, resolution, span
from inspect_lib.core.seed import generator, uniform
from inspect_lib.render import scene
from inspect_lib.render.camera import intrinsics, look_at
from inspect_lib.render.part import plate, washer


def check(config):
    rules = dict(resolution=resolution, height=span(.05, 1, 'm'))
    return check_config(config, dict(resolution=[48, 48], height=[.1, .2]), rules)


def categories(config): return {1: 'ring'}


def draw(config, seed, i):
    height = uniform(generator(seed, 'hidden', i), config['height'])
    camera = dict(pose=look_at([0, 0, height]), K=intrinsics(config['resolution'], 20), resolution=config['resolution'])
    return dict(label='ring', group=str(i), camera=camera, aside=[.03, .0128, 0., .0005][i % 4])


def build(config):
    scene.surround([1, 1, 1], 1.)
    ring, wall = scene.add_part(washer('M8'), 'my ring', 1, 'ring'), scene.add_part(plate(.02, .02, .001, (), 0), 'wall', 0)
    return scene.Scene(dict(ring=ring, wall=wall))


def apply(made, draw):
    for part in made.parts.values(): scene.paint(part, scene.LOOK)
    pose = np.eye(4); pose[:3, 3] = draw['aside'], 0, .01
    scene.place(made.parts['ring'], np.eye(4)); scene.place(made.parts['wall'], pose)
    scene.aim(*draw['camera'].values())
