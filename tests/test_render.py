"Rendering as processes and files: kills, hangs, crashes, full disks, foreign files, bad models, new use cases."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings, strategies as st

from conftest import ROOT, run_cells
from inspect_lib.core.error import UserError
from inspect_lib.core.image import write_image
from inspect_lib.data.frame import read_frame, verify_frame, write_frame
from inspect_lib.render.config import read_config
from inspect_lib.render.mesh import load_part, make_part
from inspect_lib.render.part import is_watertight, size
from inspect_lib.render.render_set import render_set
from inspect_lib.render.usecase import find_use_case, make_plan
from inspect_lib.run.params import expect_finite

TINY = {'resolution': [64, 64], 'samples': 2}

@pytest.fixture(autouse=True)
def _quiet(monkeypatch): monkeypatch.setenv('TQDM_DISABLE', '1')

def content(path): return {k: v.tobytes() for k, v in read_frame(path).arrays.items()}

def alive(pid:int) -> bool:
    "Whether a process exists and is more than a zombie"
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False

def workers_of(pid:int) -> list[int]:
    "The living rendering processes that a process started"
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try: parent, child = int(stat.read_text().rsplit(')', 1)[1].split()[1]), int(stat.parent.name)
        except OSError: continue
        if parent == pid and alive(child): found.append(child)
    return found

def wait_until(condition, seconds:float=60):
    "Poll until the condition holds"
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited too long'
        time.sleep(.05)

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "Six frames in one go, by one worker"
    os.environ['TQDM_DISABLE'] = '1'
    return render_set('station', TINY, 0, range(6), tmp_path_factory.mktemp('whole'), workers=1)

# ---------------------------------------------------------------- frames are values

def test_frame_alone_is_the_frame_in_the_sequence(whole, tmp_path):
    alone, = render_set('station', TINY, 0, [5], tmp_path/'alone', workers=1)
    a, b = read_frame(alone), read_frame(whole[5])
    assert a.draw == b.draw and a.attributes == b.attributes and set(a.arrays) == set(b.arrays) > {'depth', 'normals'}
    for key in a.arrays:
        if key == 'colors': assert np.abs(a.arrays[key].astype(int) - b.arrays[key]).max() <= 1
        elif key == 'normals': assert np.abs(a.arrays[key] - b.arrays[key]).max() < 1e-5
        else: assert (a.arrays[key] == b.arrays[key]).all(), key

def test_frames_hold_draw_labels_and_category(whole):
    frames = [verify_frame(p, make_plan('station', TINY, 0).draw(i)) for i, p in enumerate(whole)]
    assert [f.draw['label'] for f in frames] == ['present', 'missing', 'wrong_size']*2
    assert [int(f.arrays['category_id_segmaps'].max()) for f in frames] == [2, 1, 4]*2
    assert len({f.draw['group'] for f in frames}) == 6

# ---------------------------------------------------------------- interrupted

RENDER = ("import sys, json; from inspect_lib.render.render_set import render_set\n"
         "if __name__ == '__main__': render_set('station', json.loads(sys.argv[1]), 0, range(12), sys.argv[2], workers=2)")

@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_and_resumed(tmp_path, how):
    config = {'resolution': [64, 64], 'samples': 64} # Slow enough to be caught in the middle
    parent = subprocess.Popen([sys.executable, '-c', RENDER, json.dumps(config), str(tmp_path)],
                              stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.glob('*.hdf5'))) >= 2)
    children = workers_of(parent.pid)
    parent.send_signal(how); parent.wait()
    assert children and parent.returncode
    wait_until(lambda: not any(map(alive, children)), 5) # No orphans
    there = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.glob('*.hdf5')}
    assert 2 <= len(there) < 12
    for i, path in enumerate(sorted(tmp_path.glob('*.hdf5'))): verify_frame(path) # Whole, all of them
    (tmp_path/'.0123456789abcdef.part').write_bytes(b'half') # What a kill while writing leaves
    paths = render_set('station', config, 0, range(12), tmp_path, workers=2)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in there} == there
    assert sorted(tmp_path.iterdir()) == paths and len(paths) == 12
    for i, path in enumerate(paths): verify_frame(path, make_plan('station', config, 0).draw(i))

def test_broken_frames_are_made_again(whole, tmp_path):
    for path in whole[:3]: (tmp_path/path.name).write_bytes(path.read_bytes())
    (tmp_path/'000001.hdf5').write_bytes(whole[1].read_bytes()[:5000])
    flipped, colours = bytearray(whole[2].read_bytes()), read_frame(whole[2]).arrays['colors'].tobytes()
    flipped[flipped.find(colours) + 100] ^= 255
    (tmp_path/'000002.hdf5').write_bytes(flipped)
    kept = (tmp_path/'000000.hdf5').stat().st_mtime_ns
    again = render_set('station', TINY, 0, range(3), tmp_path, workers=1)
    assert again[0].stat().st_mtime_ns == kept and [content(p) for p in again] == [content(p) for p in whole[:3]]

# ---------------------------------------------------------------- somebody else's files

def test_other_frames_and_files_are_refused_and_untouched(whole, tmp_path):
    mine = tmp_path/'000000.hdf5'
    mine.write_bytes(whole[0].read_bytes())
    for config, seed in ((TINY, 1), (TINY | {'samples': 3}, 0)):
        with pytest.raises(UserError, match='another config or seed'):
            render_set('station', config, seed, [0], tmp_path, workers=1)
    (tmp_path/'notes.txt').write_text('mine')
    with pytest.raises(UserError, match="1 entries that are not asked for, e.g. 'notes.txt'"):
        render_set('station', TINY, 0, [0], tmp_path, workers=1)
    assert mine.read_bytes() == whole[0].read_bytes() and (tmp_path/'notes.txt').read_text() == 'mine'

def test_frame_of_another_program_is_refused(tmp_path):
    write_frame(tmp_path/'000000.hdf5', {'colors': np.zeros((64, 64, 3), np.uint8)}, {})
    with pytest.raises(UserError, match='another program'): render_set('station', TINY, 0, [0], tmp_path, workers=1)

def test_changed_model_file_is_another_config(tmp_path, monkeypatch):
    (tmp_path/'settings.ini').write_text(
        '[inspect_lib]\ndata=data\nparams=params\nreports=reports\ncache=cache\nworkers=1\nhub=\n')
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(tmp_path))
    import trimesh
    (tmp_path/'data').mkdir()
    config = TINY | {'classes': [{'name': 'block', 'part': 'data/block.stl', 'unit': .001}]}
    digests = []
    for side in (9, 10):
        trimesh.creation.box([side]*3).export(tmp_path/'data'/'block.stl')
        digests.append(make_plan('station', config, 0).digest)
    assert digests[0] != digests[1]
    frame = read_frame(*render_set('station', config, 0, [0], tmp_path/'out', workers=1))
    assert (frame.arrays['category_id_segmaps'] == 2).mean() > .03
    with pytest.raises(UserError, match='give the unit of its file'):
        make_plan('station', {'classes': [{'name': 'block', 'part': 'data/block.stl'}]}, 0)

# ---------------------------------------------------------------- a use case of somebody else, and what it may do wrong

USE_CASE = '''
import os, time
from inspect_lib.core.seed import generator, uniform
from inspect_lib.render import scene
from inspect_lib.render.camera import intrinsics, look_at
from inspect_lib.render.part import washer
from inspect_lib.core.constraint import check_config, choice, number, span
from pathlib import Path

def check(config):
    rules = dict(resolution=lambda v, n: v, samples=number(1, 64, whole=True), height=span(.05, 1, 'm'),
                 mood=choice('good', 'hang', 'crash', 'raise'), once=lambda v, n: v)
    return check_config(config, dict(resolution=[48, 48], samples=2, height=[.1, .2], mood='good', once=''), rules)
def draw(config, seed, i):
    height = uniform(generator(seed, 'ring', i), config['height'])
    return dict(label='ring', group=str(i), height=height, mood=config['mood'], once=config['once'])
def build(config):
    made = scene.Scene(parts={'ring': scene.add_part(washer('M8'), 'ring', 7)})
    scene.surround([1, 1, 1], 1.)
    return made
def apply(made, draw):
    if draw['index'] == 2 and draw['mood'] != 'good' and not (draw['once'] and Path(draw['once']).exists()):
        if draw['once']: Path(draw['once']).touch()
        if draw['mood'] == 'hang': time.sleep(1000)
        if draw['mood'] == 'crash': os.abort()
        raise RuntimeError('a bug in the use case')
    scene.paint(made.parts['ring'], scene.LOOK)
    scene.aim(look_at([0, 0, draw['height']]), intrinsics((48, 48), 20), (48, 48))
'''

@pytest.fixture
def ring(tmp_path, monkeypatch):
    "A use case in a module outside of the library"
    (tmp_path/'modules').mkdir()
    (tmp_path/'modules'/'ring_test.py').write_text(USE_CASE)
    (tmp_path/'modules'/'somewhere').mkdir()
    (tmp_path/'modules'/'somewhere'/'ring.py').write_text(USE_CASE)
    monkeypatch.setenv('INSPECT_LIB_PLUGINS', str(tmp_path/'modules'))
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.delitem(sys.modules, 'somewhere.ring', raising=False)
    return 'somewhere.ring'

def test_new_use_case_needs_no_change_elsewhere(ring, tmp_path):
    paths = render_set(ring, {}, 3, range(3), tmp_path/'out', workers=1, frames_per_worker=2)
    frames = [read_frame(p) for p in paths]
    assert [f.draw['use_case'] for f in frames] == [ring]*3
    for f in frames:
        category, depth = f.arrays['category_id_segmaps'], f.arrays['depth']
        assert set(np.unique(category)) == {0, 7}
        assert abs(depth[category == 7].min() - (f.draw['height'] - .0016)) < 1e-6

@pytest.mark.parametrize('mood, timeout, why', [('hang', 1, 'more than 1 s'), ('crash', 60, 'exit code -6'),
                                                ('raise', 60, 'a bug in the use case')])
def test_a_frame_that_always_fails_is_named(ring, tmp_path, mood, timeout, why):
    with pytest.raises(UserError, match='Frame 2 could not be rendered twice over') as error:
        render_set(ring, {'mood': mood}, 0, range(4), tmp_path/'out', workers=1, timeout=timeout)
    assert why in str(error.value)
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == ['000000.hdf5', '000001.hdf5']

@pytest.mark.parametrize('mood', ['hang', 'crash'])
def test_a_frame_that_fails_once_is_tried_again(ring, tmp_path, mood):
    paths = render_set(ring, {'mood': mood, 'once': str(tmp_path/'failed')}, 0, range(4), tmp_path/'out', workers=1,
                  timeout=1 if mood == 'hang' else 60)
    assert (tmp_path/'failed').exists() and all(verify_frame(p) for p in paths)

# ---------------------------------------------------------------- the disk

def test_full_disk_gives_one_sentence_and_no_broken_frame(tmp_path):
    disk = tmp_path/'disk'; disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('a small file system cannot be mounted here (needs root)')
    try:
        with pytest.raises(UserError, match='disk is full'): render_set('station', TINY, 0, range(12), disk, workers=1)
        frames = sorted(disk.glob('*'))
        assert 1 <= len(frames) < 12 and all(verify_frame(p) for p in frames)
        assert not list(disk.glob('.*'))
    finally: subprocess.run(['umount', str(disk)], check=True)

def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path/'file').touch()
    with pytest.raises(UserError, match='is a file'): render_set('station', TINY, 0, [0], tmp_path/'file', workers=1)

# ---------------------------------------------------------------- configs

@pytest.mark.parametrize('config, why', [
    ({'sampels': 8}, "Unknown key 'sampels'. Did you mean 'samples'"),
    ({'samples': '8'}, 'whole number'), ({'samples': 0}, 'must lie in 1..4096'),
    ({'lights': {'power': [3, 1]}}, 'lights.power runs backwards'),
    ({'lights': {'power': [-1, 1]}}, 'lights.power must lie in 0'),
    ({'camera': {'shift': [0, float('inf')]}}, 'range of two numbers'), ({'lights': []}, 'lights must be a mapping'),
    ([], 'must be a mapping'),
    ({'plate': {'part': 'data/none.obj'}}, 'does not exist'),
    ({'plate': {'part': '/etc/x.obj'}}, 'outside the workspace'),
    ({'classes': [{'name': 'a', 'part': 'washer', 'thread': 'M9'}]}, "no washer 'M9'"),
    ({'resolution': [224, 1e9]}, 'whole number')])
def test_bad_config_is_refused_before_any_process_starts(tmp_path, config, why):
    begin = time.monotonic()
    with pytest.raises(UserError) as error: render_set('station', config, 0, [0], tmp_path/'out', workers=1)
    assert why in str(error.value) and '\n' not in str(error.value)
    assert time.monotonic() - begin < 1.5 and not (tmp_path/'out').exists()

@pytest.mark.parametrize('arguments', [dict(workers=0), dict(frames_per_worker=0), dict(timeout=0),
                                       dict(compression='zip')])
def test_bad_arguments(tmp_path, arguments):
    with pytest.raises(UserError): render_set('station', TINY, 0, [0], tmp_path, **{'workers': 1} | arguments)

def test_bad_seed_and_frames(tmp_path):
    for seed, frames in ((-1, [0]), (0, [-1]), (0, [1.5]), (True, [0])):
        with pytest.raises(UserError, match='whole number'):
            render_set('station', TINY, seed, frames, tmp_path/'out', workers=1)

# ---------------------------------------------------------------- model files

@pytest.mark.parametrize('name, data, why', [
    ('a.obj', b'', 'empty, broken'), ('a.obj', b'v 0 0 0\nf 1 2 3\n', 'broken'),
    ('a.obj', b'v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n', ''),
    ('a.stl', b'\0'*84, 'empty, broken'),
    ('a.stl', b'\0'*80 + b'\xff\xff\xff\xff' + b'\0'*50, 'broken'),
    ('a.ply', b'ply\nformat ascii 1.0\nend_header\n', 'empty, broken'),
    ('a.ply', b'ply\nformat binary_little_endian 1.0\nelement vertex 99999999\nproperty float x\nend_header\n',
     'broken'),
    ('a.glb', b'glTF\2\0\0\0\xff\xff\xff\x7f', 'broken'), ('a.exe', b'MZ', 'unknown format'),
    ('a.obj', b'\0\xff'*5000, 'empty, broken'),
    ('a.obj', b'v 0 0 0\nv 1e9 0 0\nv 0 1e9 0\nf 1 2 3\n', 'give its unit')])
def test_broken_models_are_one_sentence(tmp_path, name, data, why):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(UserError) as error: load_part(tmp_path/name)
    assert why in str(error.value) and 'a.' in str(error.value)

def test_a_model_reads_no_other_file(tmp_path):
    (tmp_path/'model').mkdir()
    (tmp_path/'secret.mtl').write_text('newmtl m\nmap_Kd ../secret.png\n')
    (tmp_path/'model'/'a.obj').write_text('mtllib ../secret.mtl\nusemtl m\nv 0 0 0\nv .01 0 0\nv 0 .01 0\nf 1 2 3\n')
    script = "import sys; from inspect_lib.render.mesh import load_part\nopened = []\n" \
             "sys.addaudithook(lambda e, a: opened.append(str(a[0])) if e == 'open' else None)\n" \
             "load_part(sys.argv[1])\nprint([p for p in opened if 'secret' in p])"
    done = subprocess.run([sys.executable, '-c', script, str(tmp_path/'model'/'a.obj')], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr

def test_real_cad_files():
    home = os.environ.get('INSPECT_LIB_TEST_DATA')
    if not home or not list(Path(home).glob('cad/*.obj')):
        pytest.skip('INSPECT_LIB_TEST_DATA does not name a folder with cad/*.obj')
    parts = [load_part(path) for path in sorted(Path(home).glob('cad/*.obj'))]
    assert len(parts) > 3
    assert all(.001 < size(part).max() < 2 for part in parts) and any(is_watertight(part) for part in parts)
    assert [make_part({'part': 'weld_nut', 'thread': t}).name for t in ('M6', 'M8')] == ['weld nut M6', 'weld nut M8']


# ---------------------------------------------------------------- a config file alone, and values that are given twice

APPENDIX_A = """{
"blender_world_path": "data/mine/sky.png",
"target_models_dir": "data/mine/parts/",
"distraction_models_dir": "data/mine/parts/",
"backgrounds_dir": "data/mine/backgrounds/",

"random_seed": 0,
"environmental_light": [0.1, 1],
"whitelist_targets": [],
"blacklist_targets": [],
"whitelist_distractors": [],
"blacklist_distractors": [],
"whitelist_backgrounds": [],
"blacklist_backgrounds": [],

"camera":{
  "resolution": [512,512],
  "fstop": [4,16],
  "distance_empty_object": [0.5,1.5]
},
"lights":{
  "nlights": 3,
  "power": [0, 500],
  "randomize_color": 0
},
"planes":{
  "origin": [0,0,0],
  "surface": [6,6]
},
"distractors":{
  "amount": [0, 10],
  "max_dist_center": [3,3,0],
  "min_rotation": [0,0,0],
  "max_rotation": [0,0,360]
},
"targets":{
  "dist_empty_object": [0.1, 0.5],
  "min_rotation": [0,0,0],
  "max_rotation": [360,360,360]
}
}""" # The keys, order and values of the first published config; the folders are a workspace's
APPENDIX_B = """{
"blender_world_path": "data/mine/sky.png",
"target_models_dir": "data/mine/train/",
"distraction_models_dir": "data/mine/train/",
"max_levels": 6,
"environmental_light": [0.1, 1],
"whitelist_targets": [],
"blacklist_targets": [],

"camera":{
  "resolution": [512,512],
  "fstop": [4,16],
  "distance_stack": [0.5,1.5],
},
"lights":{
  "power": [0, 500],
  "randomize_color": 0
},
"boxes":{
  "small_box":{
    "path": "data/mine/train/small_box.glb",
    "colors":{
      "blue": [0.0024, 0.0, 0.13568, 1.0],
      "black": [0.0204, 0.0204, 0.0204, 1.0]
    }
  },
  "big_box":{
    "path": "data/mine/train/big_box.glb",
    "colors":{
      "light_blue": [0.0, 0.1926, 0.4070, 1.0]
    }
  }
}
}""" # The second one, with its comma before a bracket


@pytest.fixture
def mine(workspace, monkeypatch):
    "A workspace with models, a texture, a panorama and both published configs"
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    shutil.copytree(ROOT/'nbs'/'pipelines', workspace/'nbs'/'pipelines')
    folder = workspace/'data'/'mine'
    for name in ('train', 'parts', 'backgrounds'): (folder/name).mkdir(parents=True)
    for name, x, y in (('small_box', .3, .2), ('big_box', .6, .4)):
        shell, rim = trimesh.creation.box([.95*x, .95*y, .15]), trimesh.creation.box([x, y, .02])
        shell.apply_translation([0, 0, .075]); rim.apply_translation([0, 0, .16])
        trimesh.Scene({'body': shell, 'rim': rim}).export(folder/'train'/f'{name}.glb')
    for name, side in dict(plate=.05, cube=.03).items(): trimesh.creation.box([side, .03, .02]).export(folder/'parts'/f'{name}.stl')
    write_image(folder/'backgrounds'/'floor.png', np.full((16, 16, 3), [120, 100, 90], np.uint8))
    write_image(folder/'sky.png', np.full((8, 16, 3), 180, np.uint8))
    (folder/'a.json').write_text(APPENDIX_A); (folder/'b.json').write_text(APPENDIX_B)
    return workspace

FILES = dict(a='floating', b='boxes')
def planned(root, **given): return run_cells('10_render', root, 'make_plan(', **given)


@pytest.mark.parametrize('name', FILES)
def test_a_config_file_alone_is_the_configuration(mine, name):
    given = dict(use_case=f'inspect_lib.render.{FILES[name]}', config_file=f'data/mine/{name}.json', models='data/mine')
    module, file = find_use_case(FILES[name]), read_config(mine/'data'/'mine'/f'{name}.json')
    assert planned(mine, **given)['plan'].config == module.check(file)
    assert module.check(file)['samples'] == module.DEFAULTS['samples'] and file['camera']['resolution'] == [512, 512]
    assert planned(mine, **given, config=dict(samples=3))['plan'].config == module.check(file | dict(samples=3))


@pytest.mark.parametrize('name', ['station', 'billet', 'floating', 'boxes'])
def test_no_config_at_all_is_the_use_case_s_own(mine, name):
    assert planned(mine, use_case=f'inspect_lib.render.{name}')['plan'].config == find_use_case(name).check({})


@pytest.mark.slow
@pytest.mark.parametrize('name', FILES)
def test_the_published_configs_render_by_their_file_alone(mine, cli, name):
    (mine/'params'/'10_render').mkdir()
    (mine/'params'/'10_render'/'x.yaml').write_text(f'use_case: inspect_lib.render.{FILES[name]}\nconfig_file: data/mine/{name}.json\n'
                                                     'models: data/mine\nn_frames: 1\n')
    done = cli('run', '10_render', 'x')
    assert done.returncode == 0, done.stderr
    frame, = mine.glob('reports/10_render/x/*/frames/*.hdf5')
    assert verify_frame(frame).arrays['colors'].shape == (512, 512, 3)


@pytest.mark.parametrize('given, seed, said', [
    (dict(), 5, ''), (dict(seed=2), 2, "The seed is 2; the config's random_seed, 5, is not used."), (dict(seed=5), 5, ''),
    (dict(seed=0), 0, "The seed is 0; the config's random_seed, 5, is not used.")])
def test_the_run_s_seed_goes_before_the_config_s_and_is_said(mine, given, seed, said):
    names = planned(mine, use_case='inspect_lib.render.floating', config=dict(random_seed=5), **given)
    assert names['plan'].seed == names['plan'].config['random_seed'] == seed and names['seed_note'] == said


def test_a_drawn_seed_is_kept_and_stands_in_the_config(mine):
    first, again = (planned(mine, use_case='inspect_lib.render.floating', seed=-1) for _ in range(2))
    assert first['seed'] == again['seed'] >= 0 and planned(mine, seed=-1)['seed_note'] == ''


@pytest.mark.parametrize('given', [dict(n_frames=0), dict(n_frames=-3), dict(first=-1)])
def test_no_frames_are_one_sentence(mine, given):
    with pytest.raises(UserError, match=r'must be int >= [01], got'): planned(mine, **given)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8),
       st.sampled_from(['', ',', '}', '[', '"', '\\', 'NaN', '-Infinity', '1e999', '9'*30, '\x00', '{"a": 1}', '\n']), st.integers(0, 400))
@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_config_or_one_sentence(tmp_path, value, piece, place):
    text = json.dumps({'a': value, 'camera': {'resolution': [512, 512], 'fstop': [4, 16]}})
    place %= len(text) + 1
    (tmp_path/'x.json').write_text(text[:place] + piece + text[place:], encoding='utf-8', errors='replace')
    try: config = read_config(tmp_path/'x.json')
    except UserError as error: assert '\n' not in str(error) and 'x.json' in str(error); return
    assert isinstance(config, dict)
    expect_finite(config)
