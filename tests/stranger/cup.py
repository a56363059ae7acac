"A use case for `test_usecase`: a ring on a table, seen from a drawn height. Nothing in the library knows of it."
import numpy as np

from inspect_lib.core.seed import generator, uniform
from inspect_lib.render import scene
from inspect_lib.render.camera import intrinsics, look_at
from inspect_lib.render.ground import sheet
from inspect_lib.render.part import washer
from inspect_lib.core.constraint import check_config, resolution, span


def check(config):
    rules = dict(resolution=resolution, height=span(.05, 1, 'm'))
    return check_config(config, dict(resolution=[64, 48], height=[.1, .2]), rules)


def draw(config, seed, i):
    height = uniform(generator(seed, 'cup', i), config['height'])
    camera = dict(pose=look_at([0, 0, height]), K=intrinsics(config['resolution'], 20), resolution=config['resolution'])
    return dict(label='cup', group=str(i), camera=camera, height=height)


def build(config):
    scene.surround([1, 1, 1], 1.)
    table, cup = scene.add_part(sheet((1, 1)), 'table', 0), scene.add_part(washer('M8'), 'my cup', 1, 'cup')
    return scene.Scene(dict(table=table, cup=cup))


def apply(made, draw):
    for thing in made.parts.values(): scene.paint(thing, scene.LOOK); scene.place(thing, np.eye(4))
    scene.aim(*draw['camera'].values())
