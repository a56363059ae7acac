"Labels come from pixels, and cameras stand in nothing: random scenes against exact geometry, random frames against their masks."
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from inspect_lib.core.error import UserError
from inspect_lib.data.folder import read_folder
from inspect_lib.data.frame import read_frame, write_frame
from inspect_lib.data.visibility import frame_label, visibility_table, without_target
from inspect_lib.formats.annotation import read_annotations
from inspect_lib.data.sample import write_sample
from inspect_lib.formats.export import FORMATS, export_frames, verify_export
from inspect_lib.render import boxes, station
from inspect_lib.render.box import joined, pallet
from inspect_lib.render.camera import NEAR_CLIP
from inspect_lib.render.mesh import make_part
from inspect_lib.render.part import Part
from inspect_lib.render.placement import distance_to
from inspect_lib.render.procedural_parts import procedural_part
from inspect_lib.render.render_set import render_set
from inspect_lib.render.usecase import check_usecase, make_plan

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch): monkeypatch.setenv('TQDM_DISABLE', '1')


@pytest.fixture
def home(workspace, monkeypatch):
    "A workspace that this process is in"
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    return workspace


def distance(place, part, pose): # Metres, 0 inside: exact, from the hull's triangles
    "How far a place is from the convex hull of a part"
    points = part.vertices@np.array(pose)[:3, :3].T + np.array(pose)[:3, 3]
    hull = ConvexHull(points)
    if (hull.equations@[*place, 1] <= 0).all(): return 0.
    triangles = points[hull.simplices]
    nearest = trimesh.triangles.closest_point(triangles, np.repeat([place], len(triangles), 0))
    return float(np.linalg.norm(nearest - place, axis=1).min())


# ---------------------------------------------------------------- the camera stands in nothing

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(['block', 'rod', 'ring', 'valve']), st.floats(.1, 30))
def test_a_distance_is_never_more_than_it_is(seed, name, scale):
    rng = np.random.default_rng(seed)
    part = Part(name, procedural_part(name).vertices*scale, procedural_part(name).faces)
    pose = trimesh.transformations.random_rotation_matrix(rng.random(3)); pose[:3, 3] = rng.uniform(-1, 1, 3)
    side = np.ptp(part.vertices, axis=0).max()
    for place in pose[:3, 3] + rng.uniform(-1, 1, (8, 3))*side:
        found, true = distance_to(place, part, pose), distance(place, part, pose)
        assert found <= true + 1e-9 and (found >= .9*true - .12*side or not true) # And of use


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.floats(2, 12), st.floats(.3, 1.5), st.floats(1, 60))
def test_floating_cameras_stand_clear_of_all_that_is_drawn(seed, unit, crowd, elevation):
    plan = make_plan('floating', {'distractors': {'amount': [6, 10], 'unit': unit, 'max_dist_center': [crowd, crowd, 0]},
                                  'camera': {'distance_empty_object': [1.6, 2.5], 'elevation': [elevation, elevation + 20]}}, seed)
    for i in range(3):
        try: drawn = plan.draw(i)
        except UserError as error: assert 'No place was found' in str(error) or 'the camera has not found a place' in str(error); continue
        where = np.array(drawn['camera']['location'])
        parts = [(Part(t['name'], procedural_part(t['name']).vertices*unit, ()), t['pose']) for t in drawn['distractors']]
        parts += [(procedural_part(t['name']), t['pose']) for t in drawn['targets']]
        assert min(distance(where, part, pose) for part, pose in parts) > NEAR_CLIP and where[2] > NEAR_CLIP
        assert drawn['wanted_distractors'] >= len(drawn['distractors']) == drawn['summary']['distractors placed']
        assert drawn == plan.draw(i)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.floats(.3, 1.2), st.floats(5, 60))
def test_boxes_cameras_stand_clear_of_the_stack(seed, near, elevation):
    config = {'camera': {'distance_stack': [near, near + .3], 'elevation': [elevation, elevation + 5]}}
    for i in range(2):
        plan = make_plan('boxes', config, seed)
        try: drawn = plan.draw(i)
        except UserError as error: assert 'tries' in str(error); continue
        where = np.array(drawn['camera']['location'])
        for box in (b for level in drawn['levels'] for b in level):
            shape = boxes.model(plan.config, box['type'])
            if np.linalg.norm(where - np.array(box['pose'])[:3, 3]) > 1: continue
            assert distance(where, joined('box', [shape.body, shape.rim, *shape.contents]), box['pose']) > NEAR_CLIP
        assert distance(where, pallet(), np.eye(4)) > NEAR_CLIP


def test_a_station_whose_camera_stands_in_its_part_is_refused():
    config = {'camera': {'distance': .012, 'elevation': 90, 'field': 120}, 'roi': .01}
    with pytest.raises(UserError, match='camera stands in the plate or the part'): make_plan('station', config, 0).draw(0)
    drawn = make_plan('station', config | {'camera': {'distance': .04, 'elevation': 90, 'field': 60}}, 0).draw(0)
    for p in drawn['parts']:
        spec = next((c for c in station.CLASSES if c['name'] == p['name']), dict(part='plate'))
        part = make_part({k: v for k, v in spec.items() if k != 'name'})
        assert distance(drawn['camera']['location'], part, p['pose']) > NEAR_CLIP


# ---------------------------------------------------------------- millimetres taken for metres

@pytest.mark.parametrize('use_case, config, why', [
    ('floating', {'target_models_dir': 'data/mm'}, r'target_models_dir: .*block.stl is 24 m large.* give targets.unit'),
    ('floating', {'target_models_dir': 'data/m', 'distraction_models_dir': 'data/mm'},
     r'distraction_models_dir: .*block.stl is 24 m large.* give distractors.unit'),
    ('floating', {'target_models_dir': 'data/m', 'targets': {'unit': .01}}, r'block.stl is 0.00024 m large, which is less than a pixel'),
    ('station', {'classes': [{'name': 'a', 'part': 'data/mm/block.stl'}]}, r"class 'a' \(data/mm/block.stl\) is 24 m large"),
    ('station', {'plate': {'part': 'data/mm/block.stl'}}, r'The plate \(data/mm/block.stl\) is 24 m large'),
    ('boxes', {'boxes': {'crate': {'path': 'data/mm/block.stl', 'colors': {'red': [1, 0, 0, 1]}}}}, r'data/mm/block.stl .* onto a pallet'),
    ('boxes', {'boxes': {'crate': {'path': 'data/mm/block.stl', 'unit': .0006, 'colors': {'red': [1, 0, 0, 1]}}}}, r'data/mm/block.stl is too flat .* give the unit'),
    ('floating', {'target_models_dir': 'data/m', 'distraction_models_dir': 'data/mm', 'distractors': {'unit': .001}}, '')])
def test_a_wrong_unit_is_said_with_the_file(home, use_case, config, why):
    for folder, unit in (('mm', 1), ('m', .001)):
        (home/'data'/folder).mkdir()
        trimesh.creation.box(np.array([24, 24, 20.])*unit).export(home/'data'/folder/'block.stl')
    if not why: make_plan(use_case, config, 0).draw(0); return
    with pytest.raises(UserError, match=why) as error: make_plan(use_case, config, 0).draw(0)
    assert '\n' not in str(error.value)


# ---------------------------------------------------------------- labels

SHARES = st.lists(st.tuples(st.sampled_from(['nut', 'bolt', 'ring']), st.sampled_from([0., .01, .05, .0999, .1, .3, 1.])), max_size=4)


@settings(max_examples=25, deadline=None)
@given(st.lists(SHARES, min_size=1, max_size=3), st.sampled_from([0., .1, .5]))
def test_labels_and_annotations_follow_the_pixels(frames, least):
    "Objects as bars of twenty pixels, of which a share is seen; hidden ones have no attributes, as in a rendered frame"
    numbers, names = dict(nut=1, bolt=2, ring=3), {1: 'nut', 2: 'bolt', 3: 'ring'}
    with tempfile.TemporaryDirectory() as folder:
        for i, objects in enumerate(frames):
            segmap, attributes = np.zeros((8, 100), np.uint8), []
            for k, (name, share) in enumerate(objects, 1):
                segmap[2*k - 2, :round(100*share)] = k
                if round(100*share): attributes.append(dict(idx=k, name=f'{name} {k}', category=name, category_id=numbers[name], visible_share=share))
            attributes = attributes or [dict(idx=9, name='floor', category_id=0)]
            shows = sorted({name for name, _ in objects})
            label = shows[0] if len(shows) == 1 else 'several' if shows else 'none'
            write_frame(f'{folder}/{i}.hdf5', dict(colors=np.zeros((8, 100, 3), np.uint8), instance_segmaps=segmap),
                        dict(label=label, group=str(i), shows=shows, min_visible_share=least), attributes)
        paths = sorted(Path(folder).glob('*.hdf5'))
        table, found = read_folder(folder), read_annotations(paths, names)
        for objects, label, picture in zip(frames, table.gt_label, found.pictures):
            seen = [name for name, share in objects if share >= max(least, .005)]
            expected = {0: 'none', 1: ''.join(set(seen))}.get(len(set(seen)), 'several')
            assert label == expected and [names[a.category] for a in picture.visible] == seen
        counts = visibility_table(paths)
        empty = [str(i) for i, objects in enumerate(frames) if objects and not any(share >= max(least, .005) for _, share in objects)]
        assert without_target(counts) == empty
        if any(p.visible for p in found.pictures):
            export_frames(found, Path(folder)/'out', ['coco'])
            verify_export(found, Path(folder)/'out', 'coco')
            written = json.loads((Path(folder)/'out'/'coco'/'annotations.json').read_text())['annotations']
            assert len(written) == sum(len(p.visible) for p in found.pictures)


def test_every_export_leaves_out_what_is_hardly_seen(tmp_path):
    "Written and read back in every format, with a share that some objects of the sample do not reach"
    paths = write_sample(tmp_path/'sample', 4)
    whole = read_annotations(paths)
    for path in paths:
        frame = read_frame(path)
        write_frame(path, frame.arrays, frame.draw | dict(min_visible_share=.9999), frame.attributes)
    found = read_annotations(paths)
    assert 0 < sum(len(p.visible) for p in found.pictures) < sum(len(p.visible) for p in whole.pictures)
    export_frames(found, tmp_path/'out', list(FORMATS))
    for name in FORMATS: verify_export(found, tmp_path/'out', name)


def test_a_use_case_that_says_nothing_of_it_gets_labels_from_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv('INSPECT_LIB_PLUGINS', str(ROOT/'tests')) # Where `stranger.hidden` lies
    assert check_usecase('stranger.hidden')
    paths = render_set('stranger.hidden', {}, 0, range(4), tmp_path, workers=1)
    frames = [read_frame(path) for path in paths]
    pixels = [(f.arrays['category_id_segmaps'] == 1).sum() for f in frames]
    shares = [next((a['visible_share'] for a in f.attributes if a['category_id']), 0.) for f in frames]
    assert 0 < shares[1] < .9 < shares[0] and shares[2] == shares[3] == 0 and pixels[2] == pixels[3] == 0
    assert [frame_label(f) for f in frames] == ['ring', 'ring' if shares[1] >= .1 else 'none', 'none', 'none']
    assert [f.draw['shows'] for f in frames] == [['ring']]*4 and without_target(visibility_table(paths))[-2:] == ['000002', '000003']
    assert len(read_annotations(paths, {1: 'ring'}).pictures[2].visible) == 0


@pytest.mark.slow
def test_a_rendering_says_what_nobody_can_see(home, cli):
    "Towers that hide a target in some of the frames: the verdict, the figures and the report count them"
    shutil.copytree(ROOT/'nbs'/'pipelines', home/'nbs'/'pipelines')
    for folder, sides in (('targets', [.024, .024, .013]), ('towers', [.35, .35, .7])):
        (home/'data'/'parts'/folder).mkdir(parents=True)
        trimesh.creation.box(sides).export(home/'data'/'parts'/folder/f'{folder}.stl')
    (home/'params'/'10_render').mkdir(parents=True)
    (home/'params'/'10_render'/'towers.yaml').write_text(
        'use_case: inspect_lib.render.floating\nmodels: data/parts\nn_frames: 10\nconfig: {target_models_dir: data/parts/targets, '
        'distraction_models_dir: data/parts/towers, camera: {resolution: [48, 48]}, samples: 1, targets: {unit: 4, amount: [1, 1]}, '
        'distractors: {amount: [8, 10], max_dist_center: [1.2, 1.2, 0]}}\n')
    done = cli('run', '10_render', 'towers')
    assert done.returncode == 0, done.stdout + done.stderr
    run = next(home.glob('reports/10_render/*/*/metrics.json')).parent
    figures, report = json.loads((run/'metrics.json').read_text())['metrics'], (run/'report.html').read_text()
    table = visibility_table(sorted((run/'frames').glob('*.hdf5')))
    hidden = without_target(table)
    assert hidden and figures['without_target'] == len(hidden) and figures['per_class'].get('none') == len(hidden)
    assert figures['distractors'] == {k: int(table[f'{k}_distractors'].sum()) for k in ('wanted', 'placed', 'seen')}
    assert figures['annotations'] == table.seen_targets.sum() < figures['targets']['wanted'] == 10
    assert f'{len(hidden)} of 10 frames show nothing of the targets' in report and 'wanted per frame' in report
    assert 'class="verdict caution"' in report
