"""The renderers that `render.py` compares, each in a process with a Blender of its own. Not run by itself."""
import json
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from inspect_lib.data.frame import write_frame
from inspect_lib.render import engine, scene
from inspect_lib.render.usecase import find_use_case, frame_size, make_plan
from inspect_lib.render.worker import die_with_parent, scratch_folder, render_draw

SPACING = 30 # Metres between two planes of the two-pass scene


class Clock:
    "Time since it was created: processor time of this process, and wall time"
    def __init__(self): self.since = time.process_time(), time.perf_counter()
    def read(self): return dict(seconds=time.process_time() - self.since[0], clock=time.perf_counter() - self.since[1])


class BlenderScene:
    "A scene that is set up once and then rendered frame by frame"
    def __init__(self, job: dict, scratch: Path):
        self.plan, self.scratch, self.job = make_plan(job['use_case'], job['config'], job['seed']), scratch, job
        self.module = find_use_case(job['use_case'])
        self.setup()

    def setup(self):
        "Start an empty Blender and load everything"
        settings = engine.engine_settings(self.plan.config)
        engine.start(frame_size(self.plan.config), **settings, threads=self.job['threads'], scratch=str(self.scratch))
        import bpy
        self.bpy, self.made = bpy, self.module.build(self.plan.config)

    def image(self, draw: dict, seed: int = 0) -> np.ndarray:
        "Only the colours, before the sensor model"
        path = self.scratch/'image.png'
        self.module.apply(self.made, draw)
        render, self.bpy.context.scene.cycles.seed = self.bpy.context.scene.render, draw.get('noise_seed', 0) + seed
        render.filepath, render.use_compositing = str(path), False
        self.bpy.ops.render.render(write_still=True)
        render.use_compositing = True
        return cv2.imread(str(path))[..., ::-1]


class Ours(BlenderScene):
    "As a worker renders: draw, apply, all channels, sensor model, file"
    def setup(self): super().setup(); scene.enable_channels()

    def frame(self, i: int) -> dict:
        clock, draw = Clock(), self.plan.draw(i)
        arrays, attributes = render_draw(self.module, self.made, draw)
        write = Clock()
        write_frame(self.scratch/'frame.hdf5', arrays, draw, attributes)
        return clock.read() | dict(write=write.read()['seconds'])


class Cycles(BlenderScene):
    "Cycles alone: only the colours are rendered, and nothing is written"
    def frame(self, i: int) -> dict:
        draw = self.plan.draw(i)
        self.module.apply(self.made, draw)
        self.bpy.context.scene.cycles.seed = draw.get('noise_seed', 0)
        clock = Clock()
        self.bpy.ops.render.render()
        return clock.read()


class Rebuilt(Ours):
    "BlenderProc's documented procedure for another scene in the same process: clean up, load and enable everything again"
    def frame(self, i: int) -> dict:
        from blenderproc.python.utility.GlobalStorage import GlobalStorage
        clock, tree = Clock(), self.bpy.context.scene.node_tree
        for key in ('depth_output_is_enabled', 'distance_output_is_enabled'): GlobalStorage._storage_dict.pop(key, None)
        GlobalStorage.set('output', [])
        tree.nodes.clear()
        layers, composite = tree.nodes.new('CompositorNodeRLayers'), tree.nodes.new('CompositorNodeComposite')
        tree.links.new(layers.outputs['Image'], composite.inputs['Image'])
        scene._triangles.cache_clear()
        self.setup()
        super().frame(i)
        return clock.read()


class TwoPass(BlenderScene):
    """One scene that holds all frames side by side, all visible, and a second pass in glowing colours for the masks.

    It is the baseline that "Optimizing Synthetic Data Pipelines and Explainable AI for Industrial Applications" (2025)
    started from.
    """
    def setup(self):
        super().setup()
        self.own = [o for o in self.bpy.context.scene.objects if o.type == 'MESH']
        for place, i in enumerate(self.job['row']): self.fill(self.plan.draw(i), place)
        self.lamps = [o for o in self.bpy.context.scene.objects if o.type == 'LIGHT']
        self.glow = self.glowing()

    def fill(self, draw: dict, place: int):
        "Fill one plane of the row with real copies of everything that the frame shows"
        self.module.apply(self.made, draw)
        self.bpy.context.view_layer.update()
        for own in self.own:
            if own.hide_render: continue
            copy, where = own.copy(), own.matrix_world.copy()
            copy.parent, copy.data = None, own.data.copy()
            for slot in copy.material_slots: slot.material = slot.material.copy()
            where.translation.x += place*SPACING
            copy.matrix_world, copy.pass_index = where, len(self.bpy.data.objects)
            self.bpy.context.scene.collection.objects.link(copy)

    def glowing(self):
        "A material that shows an object's pass index as its colour"
        material = self.bpy.data.materials.new('glow')
        material.use_nodes = True
        nodes, link = material.node_tree.nodes, material.node_tree.links.new
        nodes.clear()
        info, scale, glow, out = (nodes.new(f'Shader{k}') for k in ('NodeObjectInfo', 'NodeMath', 'NodeEmission', 'NodeOutputMaterial'))
        scale.operation, scale.inputs[1].default_value = 'DIVIDE', 255
        link(info.outputs['Object Index'], scale.inputs[0]); link(scale.outputs[0], glow.inputs['Color'])
        link(glow.outputs[0], out.inputs['Surface'])
        return material

    def move_to(self, i: int):
        "Move camera and lamps to the frame's plane, and hide the originals at the origin"
        draw, shift = self.plan.draw(i), self.job['row'].index(i)*SPACING
        self.module.apply(self.made, draw)
        for own in self.own: own.hide_render = True
        self.bpy.context.view_layer.update()
        for thing in (self.bpy.context.scene.camera, *self.lamps):
            where = thing.matrix_world.copy(); where.translation.x += shift; thing.matrix_world = where
        self.bpy.context.scene.cycles.seed = draw.get('noise_seed', 0)

    def render(self, name: str) -> np.ndarray:
        "Render a pass"
        self.bpy.context.scene.render.filepath = str(self.scratch/name)
        self.bpy.ops.render.render(write_still=True)
        return cv2.imread(str(self.scratch/name))[..., ::-1]

    def frame(self, i: int) -> dict:
        clock = Clock()
        self.move_to(i)
        self.colors = self.render('rgb.png')
        second = Clock()
        scene_, layer, world = self.bpy.context.scene, self.bpy.context.view_layer, self.bpy.context.scene.world
        kept, view = (scene_.cycles.samples, world, scene_.camera.data.dof.use_dof), scene_.view_settings
        layer.material_override, scene_.cycles.samples, scene_.world = self.glow, 1, None
        scene_.camera.data.dof.use_dof, view.view_transform, exposure = False, 'Raw', view.exposure
        view.exposure = 0
        for lamp in self.lamps: lamp.hide_render = True
        mask = self.render('mask.png')
        for lamp in self.lamps: lamp.hide_render = False
        layer.material_override, view.view_transform, view.exposure = None, 'Standard', exposure
        scene_.cycles.samples, scene_.world, scene_.camera.data.dof.use_dof = kept
        self.masks = {int(n): mask[..., 0] == n for n in np.unique(mask) if n}
        return clock.read() | dict(second_pass=second.read()['seconds'], objects=len(self.masks))

    def image(self, draw: dict, seed: int = 0) -> np.ndarray: return self.colors # Of the frame that was rendered last


RENDERERS = {'ours': Ours, 'cycles': Cycles, 'rebuilt': Rebuilt, 'two-pass': TwoPass}


def main():
    "Answer requests, one JSON object a line: engine settings to apply, a frame to time, an image to save"
    lines = os.fdopen(os.dup(1), 'w', buffering=1); os.dup2(2, 1)
    job = json.loads(sys.argv[1])
    die_with_parent(job['parent'])
    with scratch_folder() as scratch:
        blender = RENDERERS[job['renderer']](job, scratch)
        for request in map(json.loads, sys.stdin):
            answer = {}
            if 'engine' in request: engine.tune(**request['engine'])
            if 'frame' in request: answer = blender.frame(request['frame'])
            if 'image' in request:
                np.save(request['to'], blender.image(blender.plan.draw(request['image']), request.get('seed', 0)))
            print(json.dumps(answer), file=lines)


if __name__ == '__main__': main()
