"Use cases: the same trials for each, the published configs, one's own; folders of models and textures, broken ones."
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from inspect_lib.core.error import UserError
from inspect_lib.core.image import write_image
from inspect_lib.data.frame import read_frame, verify_frame
from inspect_lib.guide.ranges import drawn_values
from inspect_lib.render import mesh as model
from inspect_lib.render.camera import to_opencv
from inspect_lib.render.config import merged, read_config
from inspect_lib.render.mesh import load_bodies, load_part
from inspect_lib.render.part import size
from inspect_lib.render.render_set import render_set
from inspect_lib.render.procedural_parts import TARGETS
from inspect_lib.render.usecase import category_names, check_usecase, find_use_case, left_out, make_plan, use_cases
from inspect_lib.run.dependencies import find_dependencies
from inspect_lib.run.params import read_params

ROOT = Path(__file__).parents[1]
ALL = [*use_cases(), 'stranger.cup'] # The built-in ones and one that the library does not know
SMALL = {'camera': {'resolution': [64, 64]}, 'samples': 2}
KEYS = {'floating': """blender_world_path target_models_dir distraction_models_dir backgrounds_dir random_seed
            environmental_light whitelist_targets blacklist_targets whitelist_distractors blacklist_distractors
            whitelist_backgrounds blacklist_backgrounds camera lights planes distractors targets""",
        'boxes': """blender_world_path target_models_dir distraction_models_dir max_levels environmental_light
            whitelist_targets blacklist_targets camera lights boxes"""}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv('TQDM_DISABLE', '1')
    monkeypatch.setenv('INSPECT_LIB_PLUGINS', str(ROOT/'tests')) # Where `stranger.cup` lies


@pytest.fixture
def home(workspace, monkeypatch):
    "A workspace that this process is in"
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    return workspace


@pytest.fixture(scope='module')
def floating(tmp_path_factory):
    "Three frames of the first published config, small"
    os.environ['TQDM_DISABLE'] = '1'
    return render_set('floating', config_of('floating'), 3, range(3), tmp_path_factory.mktemp('floating'), workers=1)


def config_of(name): return merged(read_config(ROOT/'params'/'10_render'/f'{name}.json'), SMALL)


def annotated(frame): return [a for a in frame.attributes if a['category_id']]


# ---------------------------------------------------------------- every use case, the same trials

def tiny(name):
    "A config of as few pixels and light paths as there may be"
    complete = find_use_case(name).check({})
    small = {'resolution': [32, 32]} if 'resolution' in complete else {'camera': {'resolution': [32, 32]}}
    return small | ({'samples': 1} if 'samples' in complete else {})


def test_the_built_in_use_cases(): assert {'station', 'floating', 'boxes', 'billet'} <= set(use_cases())


@pytest.mark.parametrize('name', use_cases())
def test_a_run_depends_on_its_own_use_case_alone(name):
    "A change in one use case must not make the runs of another new ones"
    cells = ['from inspect_lib.render.render_set import render_set\nrender_set()']
    modules = {function.rpartition('.')[0] for function in find_dependencies(cells, [name]).functions}
    assert {m for m in use_cases() if f'inspect_lib.render.{m}' in modules} == {name}


@pytest.mark.parametrize('name', ALL)
def test_trials_without_blender(name): assert check_usecase(name)


@pytest.mark.parametrize('name', ALL)
def test_draws_fill_their_ranges(name):
    use_case = find_use_case(name)
    values = drawn_values(use_case, config := use_case.check({}), config, 0, range(40))
    assert values
    for key, frames in values.items():
        shares = np.concatenate(frames)
        assert 0 <= shares.min() < .2 and .8 < shares.max() <= 1, key
        assert (np.histogram(shares, 3, (0, 1))[0] > 0).all(), key


@pytest.mark.slow
@pytest.mark.parametrize('name', ALL)
def test_a_rendered_frame_shows_what_the_use_case_says(name, tmp_path):
    plan = make_plan(name, tiny(name), 0)
    frame = verify_frame(*render_set(name, tiny(name), 0, [0], tmp_path, workers=1), plan.draw(0))
    assert frame.arrays['colors'].shape == (32, 32, 3) and frame.arrays['colors'].std() > 1
    shown = {a['category_id']: a['category'] for a in annotated(frame)}
    assert set(np.unique(frame.arrays['category_id_segmaps'])) - {0} <= set(shown)
    names = category_names(find_use_case(name), plan.config)
    assert names is None or shown.items() <= names.items()


# ---------------------------------------------------------------- the published configs

@pytest.mark.parametrize('name', KEYS)
def test_the_published_keys_and_no_others(name):
    assert list(read_config(ROOT/'params'/'10_render'/f'{name}.json')) == KEYS[name].split()


def test_floating(floating):
    plan = make_plan('floating', config_of('floating'), 3)
    for i, frame in enumerate(verify_frame(path, plan.draw(i)) for i, path in enumerate(floating)):
        drawn, seen = {t['name']: t for t in frame.draw['targets']}, annotated(frame)
        assert seen and {a['category'] for a in seen} <= set(drawn)
        for a in seen:
            assert a['category_id'] == sorted(TARGETS).index(a['category']) + 1 and a['in_frame_share'] == 1
            pose = np.linalg.inv(to_opencv(np.array(frame.draw['camera']['pose'])))@drawn[a['category']]['pose']
            assert np.allclose(pose, a['pose'], atol=1e-5)
            y, x = np.nonzero(frame.arrays['instance_segmaps'] == a['idx'])
            assert 0 < a['visible_share'] <= 1
            box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert (np.subtract(a['amodal_box'], box)*[1, 1, -1, -1] <= .5).all()


def test_a_frame_alone_is_the_frame_in_the_sequence(floating, tmp_path):
    alone, = render_set('floating', config_of('floating'), 3, [2], tmp_path, workers=1)
    a, b = read_frame(alone), read_frame(floating[2])
    assert a.draw == b.draw and a.attributes == b.attributes
    for key in ('depth', 'instance_segmaps', 'category_id_segmaps'): assert (a.arrays[key] == b.arrays[key]).all(), key
    differs = np.abs(a.arrays['colors'].astype(int) - b.arrays['colors'])
    assert differs.max() <= 1 and (differs > 0).mean() < .001


def test_boxes(tmp_path):
    frame = read_frame(*render_set('boxes', config_of('boxes') | {'max_levels': 2}, 1, [0], tmp_path, workers=1))
    levels = frame.draw['levels']
    drawn = {f"{b['type']}.{b['copy']:03}".removesuffix('.000'): b for level in levels for b in level}
    top = [a for a in annotated(frame) if drawn[a['name']] in levels[-1]]
    assert top and all(a['category'] == levels[-1][0]['type'] and abs(a['size'][2] - .014) < 1e-5 for a in top)
    assert max(a['visible_share'] for a in top) > .6
    assert (frame.arrays['category_id_segmaps'] > 0).mean() < .3 # Rims alone


@pytest.mark.slow
def test_share_in_frame_on_the_rendered_result(tmp_path):
    config = merged(SMALL, {'camera': {'resolution': [96, 96]}, 'whitelist_targets': ['hex_bolt', 'washer'],
                            'targets': {'in_frame_share': [.3, .7], 'amount': [1, 1]}, 'planes': {'amount': [0, 0]}})
    for frame in map(read_frame, render_set('floating', config, 0, range(4), tmp_path, workers=1)):
        (a,), (t,) = annotated(frame), frame.draw['targets']
        assert abs(a['in_frame_share'] - t['in_frame_share']) < .15 # Drawn by the hull, measured on the silhouette
        assert a['visible_share'] <= a['in_frame_share'] + .08


# ---------------------------------------------------------------- one's own use case

def test_a_use_case_of_ones_own(tmp_path):
    frame = read_frame(*render_set('stranger.cup', {}, 0, [0], tmp_path, workers=1))
    a, = annotated(frame)
    assert (a['name'], a['category'], a['category_id'], a['in_frame_share']) == ('my cup', 'cup', 1, 1)
    assert np.allclose(np.array(a['pose'])[:3, 3], [0, 0, frame.draw['height']], atol=1e-6) and a['visible_share'] > .97
    depth = frame.arrays['depth'][frame.arrays['category_id_segmaps'] == 1].min()
    assert abs(depth - frame.draw['height'] + .0016) < 1e-6


# ---------------------------------------------------------------- folders

STEP_HEAD = """ISO-10303-21;
HEADER;FILE_DESCRIPTION((''),'2;1');FILE_NAME('','',(''),(''),'','','');FILE_SCHEMA(('AUTOMOTIVE_DESIGN'));ENDSEC;
DATA;
#1=APPLICATION_CONTEXT('');#2=PRODUCT_CONTEXT('',#1,'mechanical');#3=PRODUCT('p','p','',(#2));
#4=PRODUCT_DEFINITION_FORMATION('','',#3);#5=PRODUCT_DEFINITION_CONTEXT('part definition',#1,'design');
#6=PRODUCT_DEFINITION('','',#4,#5);#7=PRODUCT_DEFINITION_SHAPE('','',#6);
#8=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT(.MILLI.,.METRE.));#9=(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.));
#10=(NAMED_UNIT(*)SI_UNIT($,.STERADIAN.)SOLID_ANGLE_UNIT());
#11=UNCERTAINTY_MEASURE_WITH_UNIT(LENGTH_MEASURE(1.E-3),#8,'','');
#12=(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNCERTAINTY_ASSIGNED_CONTEXT((#11))
GLOBAL_UNIT_ASSIGNED_CONTEXT((#8,#9,#10))REPRESENTATION_CONTEXT('',''));
"""


def step_of(mesh) -> str:
    "A body of plane triangles as a STEP file in millimetres"
    lines, n = [], 20
    text = lambda p: '(' + ','.join(f'{x:.6f}' for x in p) + ')'
    for p in mesh.vertices: lines.append(f"#{n}=CARTESIAN_POINT('',{text(p)});"); n += 1
    faces = []
    for face, normal in zip(mesh.faces, mesh.face_normals):
        a, b = mesh.vertices[face[:2]]
        along = (b - a)/np.linalg.norm(b - a)
        lines += [f"#{n}=POLY_LOOP('',({','.join(f'#{20 + v}' for v in face)}));",
                  f"#{n + 1}=FACE_OUTER_BOUND('',#{n},.T.);",
                  f"#{n + 2}=DIRECTION('',{text(normal)});", f"#{n + 3}=DIRECTION('',{text(along)});",
                  f"#{n + 4}=AXIS2_PLACEMENT_3D('',#{20 + face[0]},#{n + 2},#{n + 3});",
                  f"#{n + 5}=PLANE('',#{n + 4});", f"#{n + 6}=FACE_SURFACE('',(#{n + 1}),#{n + 5},.T.);"]
        faces.append(f'#{n + 6}'); n += 7
    lines += [f"#{n}=CLOSED_SHELL('',({','.join(faces)}));", f"#{n + 1}=FACETED_BREP('',#{n});",
              f"#{n + 2}=FACETED_BREP_SHAPE_REPRESENTATION('',(#{n + 1}),#12);",
              f'#{n + 3}=SHAPE_DEFINITION_REPRESENTATION(#7,#{n + 2});']
    return STEP_HEAD + '\n'.join(lines) + '\nENDSEC;\nEND-ISO-10303-21;\n'


BLEND = """import bpy, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
for name, place, edge in (('shell', (0, 0, 0), .2), ('rim', (0, 0, .11), .1)):
    bpy.ops.mesh.primitive_cube_add(size=edge, location=place); bpy.context.object.name = name
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[1])
"""


def test_models_of_every_format(home):
    folder, box = home/'data'/'parts', trimesh.creation.box([30, 40, 50])
    folder.mkdir()
    for suffix in model.MESHES: box.export(folder/f'{suffix[1:]}_box{suffix}')
    (folder/'cad.step').write_text(step_of(box))
    for name in folder.iterdir():
        part = load_part(name, 1. if name.suffix == '.step' else .001)
        assert np.allclose(size(part), [.03, .05, .04] if name.suffix == '.glb' else [.03, .04, .05], atol=1e-6), name
    subprocess.run([sys.executable, '-c', BLEND, str(folder/'two.blend')], check=True, capture_output=True)
    bodies = load_bodies(folder/'two.blend')
    assert {n: np.round(size(p), 6).tolist() for n, p in bodies.items()} == {'shell': [.2]*3, 'rim': [.1]*3}
    assert abs(bodies['rim'].vertices[:, 2].mean() - .11) < 1e-6
    kept = sorted((home/'.cache'/'models').iterdir())
    assert len(kept) == 2 and load_part(folder/'two.blend').name == 'two'
    for name, whole in {'half.step': 'cad.step', 'half.blend': 'two.blend'}.items():
        (folder/name).write_bytes((folder/whole).read_bytes()[:900])
        with pytest.raises(UserError, match=f'{name} (cannot be read|holds no triangles)'): load_part(folder/name)
    assert sorted((home/'.cache'/'models').iterdir()) == kept


def test_a_folder_of_parts_textures_and_a_world(home, tmp_path):
    parts, floors = home/'data'/'parts', home/'data'/'floors'
    parts.mkdir(); floors.mkdir()
    trimesh.creation.box([30, 40, 50]).export(parts/'brick.stl')
    trimesh.creation.icosphere(subdivisions=5, radius=30).export(parts/'ball.ply')
    (parts/'torn.stl').write_bytes((parts/'brick.stl').read_bytes()[:200])
    (parts/'flat.obj').write_text('v 0 0 0\nv 1 0 0\nv 0 1 0\n')
    (parts/'nan.obj').write_text('v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n')
    write_image(floors/'red.png', np.full((16, 16, 3), [200, 20, 20], np.uint8))
    (floors/'words.jpg').write_text('not a picture')
    write_image(home/'data'/'sky.png', np.full((8, 16, 3), 180, np.uint8))
    config = merged(SMALL, {'target_models_dir': 'data/parts', 'backgrounds_dir': 'data/floors', 'broken': 'skip',
                            'blender_world_path': 'data/sky.png', 'distractors': {'amount': [0, 0]},
                            'planes': {'amount': [1, 9]}, 'targets': {'unit': .001, 'amount': [2, 2]}})
    for change, why in (({'broken': 'stop'}, r'target_models_dir: .*(torn.stl|flat.obj|nan.obj)'),
                        ({'whitelist_targets': ['brik']}, "Did you mean 'brick'"),
                        ({'whitelist_targets': ['torn']}, 'every file is broken'),
                        ({'target_models_dir': 'data/none'}, 'does not exist'),
                        ({'target_models_dir': 'data/floors'}, 'no file of a known kind')):
        with pytest.raises(UserError, match=why) as error: make_plan('floating', config | change, 0)
        assert '\n' not in str(error.value)
    plan = make_plan('floating', config, 0)
    sentences = '\n'.join(left_out(find_use_case('floating'), plan.config))
    assert all(name in sentences for name in ('torn.stl', 'flat.obj', 'nan.obj', 'words.jpg')) and 'not finite' in sentences
    frame = read_frame(*render_set('floating', config, 0, [0], tmp_path/'out', workers=1))
    ids = {a['category']: a['category_id'] for a in annotated(frame)}
    assert ids == {'ball': 1, 'brick': 2} # Of ball, brick, flat, nan, torn
    ground = frame.arrays['colors'][frame.arrays['category_id_segmaps'] == 0].mean(0)
    assert ground[0] > 2*ground[1] # The red floor


def test_ids_do_not_depend_on_the_order_of_the_folder(home):
    digests = []
    for k, names in enumerate((['a', 'b', 'c'], ['c', 'a', 'b'])):
        folder = home/'data'/'parts'
        if folder.exists(): [p.unlink() for p in folder.iterdir()]
        folder.mkdir(exist_ok=True)
        for name in names: trimesh.creation.box([.03, .04, .05 + .01*ord(name)/100]).export(folder/f'{name}.stl')
        plan = make_plan('floating', SMALL | {'target_models_dir': 'data/parts'}, 0)
        digests.append((plan.digest, [plan.draw(i) for i in range(5)]))
    assert digests[0] == digests[1]
    assert {t['name']: t['category_id'] for d in digests[0][1] for t in d['targets']} == {'a': 1, 'b': 2, 'c': 3}


def test_meshes_of_a_million_faces_are_read_and_more_are_refused(tmp_path, monkeypatch):
    ball = trimesh.creation.icosphere(subdivisions=7, radius=.05)
    ball.export(tmp_path/'ball.stl')
    assert len(load_part(tmp_path/'ball.stl').faces) == len(ball.faces) > 300_000
    monkeypatch.setattr(model, 'MAX_FACES', 100_000)
    with pytest.raises(UserError, match='more than the 100000 that are read; export it with fewer'):
        load_part(tmp_path/'ball.stl')


def test_a_box_from_a_file(home, tmp_path):
    shell, rim = trimesh.creation.box([380, 280, 150]), trimesh.creation.box([400, 300, 20])
    shell.apply_translation([0, 0, 75]); rim.apply_translation([0, 0, 160])
    (home/'data'/'boxes').mkdir()
    for mesh in (shell, rim): mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.pi/2, [1, 0, 0])) # A GLB is y up
    trimesh.Scene({'body': shell, 'rim': rim}).export(home/'data'/'boxes'/'crate.glb')
    red = {'red': [.5, .01, .01, 1]}
    config = SMALL | {'target_models_dir': 'data/boxes', 'max_levels': 1, 'incomplete': 0,
                      'boxes': {'crate': {'path': 'crate.glb', 'unit': .001, 'colors': red}}}
    plan = make_plan('boxes', config, 0)
    assert len(plan.draw(0)['levels'][0]) == 8
    assert find_use_case('boxes').files(plan.config) == [home/'data'/'boxes'/'crate.glb']
    with pytest.raises(UserError, match='give the unit of its file'):
        make_plan('boxes', config | {'boxes': {'crate': {'path': 'crate.glb', 'unit': .1, 'colors': red}}}, 0)


# ---------------------------------------------------------------- draws in numbers

def test_a_late_frame_costs_what_an_early_one_costs():
    plan = make_plan('floating', {}, 0)
    def seconds(first):
        begin = time.process_time()
        for i in range(first, first + 40): plan.draw(i)
        return time.process_time() - begin
    seconds(0)
    assert min(seconds(900_000) for _ in range(3)) < 1.5*min(seconds(0) for _ in range(3))


@pytest.mark.slow
def test_every_required_range_is_covered():
    config = read_config(ROOT/'params'/'10_render'/'floating.json')
    config = merged(config, read_params(ROOT/'params'/'10_render'/'floating_required.yaml')['config'])
    plan = make_plan('floating', config, 0)
    drawn = [plan.draw(i)['summary'] for i in range(4000)]
    for name, (low, high) in {'target x, m': (0, 1.6), 'target y, m': (0, 1.2), 'target z, m': (.75, 4.15),
                              **{f'target {a}, degrees': (-180, 180) for a in ('alpha', 'beta', 'gamma')},
                              'share in frame': (0, 1), 'distractors': (0, 10), 'environment light': (0, 300),
                              'background plane': (0, 10), 'f-stop': (1, 10)}.items():
        v, near = np.array([d[name] for d in drawn]), .01*(high - low)
        assert low <= v.min() <= low + near and high - near <= v.max() <= high, name
        whole = name in ('distractors', 'background plane')
        assert np.histogram(v, 11 if whole else 20, (low, high))[0].min() >= 20, name


@pytest.mark.slow
@pytest.mark.parametrize('name', ['floating', 'boxes'])
def test_one_command(home, cli, name):
    shutil.copytree(ROOT/'nbs'/'pipelines', home/'nbs'/'pipelines')
    shutil.copytree(ROOT/'params'/'10_render', home/'params'/'10_render')
    tiny = 'config={camera: {resolution: [48, 48]}, samples: 2, random_seed: -1}'
    done = cli('run', '10_render', name, '-p', 'n_frames=2', '-p', tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    run, = (home/'reports'/'10_render'/name).iterdir()
    assert len(list((run/'frames').iterdir())) == 2 and (run/'exports'/'coco'/'annotations.json').is_file()
    seed = json.loads((run/'seed.json').read_text())['seed']
    assert {verify_frame(path).draw['seed'] for path in (run/'frames').iterdir()} == {seed}
