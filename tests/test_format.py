"Exports as files and processes: what others wrote, hidden and shattered things, kills, full disks, foreign folders, conversions."
import importlib, json, pkgutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import inspect_lib.formats
from inspect_lib.core.error import UserError
from inspect_lib.core.file import folder_files, tree_hash, write_json
from inspect_lib.core.image import write_image
from inspect_lib.core.seed import generator
from inspect_lib.formats.annotation import AnnotatedSet, Annotation, Picture, compare, read_annotations, to_mask, to_rle
from inspect_lib.formats.bundle import is_intact
from inspect_lib.formats.coco import read_coco, write_coco
from inspect_lib.formats.export import FORMATS, export_frames, verify_export
from inspect_lib.data.frame import read_frame, write_frame
from inspect_lib.formats.polygon import from_polygons, to_polygons, to_ring
from inspect_lib.formats.pool import read_pool
from inspect_lib.data.sample import draw_frame, write_sample
from inspect_lib.formats.voc import read_voc, write_voc
from inspect_lib.formats.yolo import read_yolo, write_yolo

MASKS = [name for name, form in FORMATS.items() if form.masks]

@pytest.fixture(autouse=True)
def _quiet(monkeypatch): monkeypatch.setenv('TQDM_DISABLE', '1')

def part_of(a, keys=('idx', 'name', 'category_id')): return {key: a[key] for key in keys}

# ---------------------------------------------------------------- frames of BlenderProc

def blenderproc_frame(path, seed=0):
    "Its layout: gzip, attributes as JSON bytes with its own keys, a version; no draw, no digest"
    arrays, _, attributes = draw_frame(generator(seed, 'bp'), parts=6)
    bare = [part_of(a) for a in attributes] + [dict(idx=0, name='world', category_id=0)]
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, 'w') as file:
        for key, array in arrays.items(): file.create_dataset(key, data=array, compression='gzip')
        file['instance_attribute_maps'] = np.bytes_(json.dumps(bare))
        file['blender_proc_version'] = np.bytes_('2.8.0')
    return path

def test_blenderprocs_frames_go_into_every_format_but_poses(tmp_path):
    paths = [blenderproc_frame(tmp_path/'frames'/f'{i}.hdf5', i) for i in range(3)]
    formats = [name for name in FORMATS if name != 'bop']
    figures, seconds = export_frames(paths, tmp_path/'out', formats)
    assert list(figures) == list(seconds) == formats and all(s > 0 for s in seconds.values())
    for name in formats: assert verify_export(paths, tmp_path/'out', name)['equal_pictures'] == figures[name]['pictures'] or name == 'crops'
    assert set(read_coco(tmp_path/'out'/'coco').categories.values()) == {'pin', 'plate', 'washer'}
    with pytest.raises(UserError, match="'plate.001' has no 'pose'"): export_frames(paths, tmp_path/'out', ['bop'])
    assert not (tmp_path/'out'/'bop').exists()

def test_blenderprocs_coco_agrees_and_is_read(tmp_path, monkeypatch):
    "Its own writer on the same frame: the same boxes, areas and masks"
    import importlib.util, types
    package = types.ModuleType('blenderproc')
    package.__path__ = list(importlib.util.find_spec('blenderproc').submodule_search_locations)
    monkeypatch.setitem(sys.modules, 'blenderproc', package)
    monkeypatch.setitem(sys.modules, 'bpy', types.ModuleType('bpy')) # Imported by it, used for nothing here
    from blenderproc.python.writer.CocoWriterUtility import _CocoWriterUtility as theirs
    path = blenderproc_frame(tmp_path/'frames'/'0.hdf5')
    frame = read_frame(path)
    write_image(tmp_path/'theirs'/'0.png', frame.arrays['colors'])
    data = theirs.generate_coco_annotations([frame.arrays['instance_segmaps']], [frame.attributes], ['0.png'],
                                            'coco_annotations', 'rle')
    write_json(tmp_path/'theirs'/'coco.json', data)
    found, read = read_annotations([path]), read_coco(tmp_path/'theirs'/'coco.json')
    same = compare(AnnotatedSet(found.pictures, read.categories), read) # They name a category after its first instance
    n = len(found.pictures[0].visible)
    assert same['annotations'] == [n, n] and same['box_error'] == 0 and same['equal_masks'] == same['same_category'] == n > 3
    write_coco(found, tmp_path/'ours')
    area = lambda rows: [row['area'] for row in rows['annotations']]
    assert area(data) == area(json.loads((tmp_path/'ours'/'annotations.json').read_text()))

# ---------------------------------------------------------------- difficult content

def write_map(path, segmap, category=lambda i: 1):
    "A frame with a given instance map"
    attributes = [dict(idx=int(i), name=f'thing.{i:03}', category_id=category(i), category=f'c{category(i)}', pose=np.eye(4).tolist(),
                       amodal_box=[0., 0., 9., 9.], visible_share=.5, in_frame_share=1.) for i in np.unique(segmap) if i]
    h, w = segmap.shape
    camera = dict(pose=np.eye(4).tolist(), K=np.eye(3).tolist(), resolution=[w, h])
    colors = generator(0, 'map').integers(0, 256, (h, w, 3), dtype=np.uint8)
    write_frame(path, dict(colors=colors, depth=np.full((h, w), .7, np.float32), instance_segmaps=segmap), dict(camera=camera), attributes)

def test_shattered_things_keep_every_pixel(tmp_path):
    "Noise: things of many pieces, holes in holes, single pixels, at the borders"
    rng = generator(0, 'noise')
    for i in range(3): write_map(tmp_path/'frames'/f'{i}.hdf5', rng.integers(0, 4, (17 + i, 23)).astype(np.uint16), lambda i: 1 + int(i) % 2)
    paths = sorted((tmp_path/'frames').iterdir())
    export_frames(paths, tmp_path/'out', MASKS)
    for name in MASKS:
        figures = verify_export(paths, tmp_path/'out', name)
        assert figures['equal_masks'] == figures['masks'] == 9 and figures['box_error'] < .01, name

def test_wholly_hidden_thing_is_only_where_poses_are(tmp_path):
    arrays, draw, attributes = draw_frame(generator(0, 'hidden'), parts=2)
    attributes.append(dict(attributes[0], idx=9, name='behind', visible_share=0., in_frame_share=1.))
    write_frame(tmp_path/'0.hdf5', arrays, draw, attributes)
    figures, _ = export_frames([tmp_path/'0.hdf5'], tmp_path/'out', FORMATS)
    assert {f['annotations'] for f in figures.values()} == {2}
    counts = {name: verify_export([tmp_path/'0.hdf5'], tmp_path/'out', name)['annotations'] for name in FORMATS}
    assert {name: n for name, n in counts.items() if n != [2, 2]} == {'folders': [3, 3], 'bop': [3, 3]}
    scene = tmp_path/'out'/'bop'/'train_pbr'/'000000'
    info = json.loads((scene/'scene_gt_info.json').read_text())['0'][2]
    assert info['bbox_visib'] == [-1]*4 and info['px_count_visib'] == info['visib_fract'] == 0

def test_frame_with_nothing_in_view(tmp_path):
    arrays, draw, attributes = draw_frame(generator(1, 'empty'))
    write_frame(tmp_path/'0.hdf5', arrays, draw, attributes)
    arrays['instance_segmaps'][:] = arrays['category_id_segmaps'][:] = 0
    write_frame(tmp_path/'1.hdf5', arrays, draw, [a | dict(visible_share=0.) for a in attributes])
    paths = [tmp_path/'0.hdf5', tmp_path/'1.hdf5']
    export_frames(paths, tmp_path/'out', FORMATS)
    for name in FORMATS: verify_export(paths, tmp_path/'out', name)
    assert [len(p.annotations) for p in read_yolo(tmp_path/'out'/'yolo').pictures if p.name == '1'] == [0]

def test_small_thing_in_the_corner_of_a_large_picture(tmp_path):
    "Four million pixels, one small ring"
    segmap = np.zeros((2000, 2000), np.uint8)
    v, u = np.ogrid[:60, :60]
    segmap[1940:, 1940:] = (np.hypot(u - 30, v - 30) < 28) & (np.hypot(u - 30, v - 30) > 12)
    write_map(tmp_path/'0.hdf5', segmap)
    found = read_annotations([tmp_path/'0.hdf5'])
    a, = found.pictures[0].annotations
    assert (to_mask(a.rle) == (segmap == 1)).all() and max(a.box) <= 2000

def test_categories_do_not_depend_on_the_order_of_frames(tmp_path):
    paths = write_sample(tmp_path, 4)
    assert read_annotations(paths).categories == read_annotations(paths[::-1]).categories

@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1), (3, 3)])
def test_tiny_pictures(tmp_path, size):
    write_map(tmp_path/'0.hdf5', np.ones(size, np.uint8))
    export_frames([tmp_path/'0.hdf5'], tmp_path/'out', FORMATS)
    for name in FORMATS: verify_export([tmp_path/'0.hdf5'], tmp_path/'out', name)

def test_real_masks_survive_polygons(real_data):
    "Defects of magnetic tiles: ragged, with holes and specks"
    folder = real_data/'magnetic_tile'
    index = pd.read_csv(folder/'index.csv').dropna(subset=['mask'])
    seen = 0
    for name in index['mask'].iloc[::12]:
        mask = np.asarray(Image.open(folder/name).convert('L')) > 127
        if not mask.any(): continue
        rle, seen = to_rle(mask), seen + 1
        assert from_polygons(to_polygons(mask), mask.shape) == rle == from_polygons([to_ring(mask)], mask.shape), name
    assert seen > 10

# ---------------------------------------------------------------- what every entry of FORMATS must be able to do

PARTS = dict(purpose='who reads it, a text', write='a function (set, folder) that writes it', read='a function (folder) that gives a set',
             is_it='a function (folder) that recognises it')

def check_format(name, form, paths, folder):
    "Write, recognise, read, compare, train; a failure names the format and the part"
    for part, what in PARTS.items():
        there = getattr(form, part, None)
        assert there if part == 'purpose' else callable(there), f"Format '{name}' lacks '{part}': {what}."
    given, target = read_annotations(paths), folder/name
    form.write(given, target)
    assert (target/'export.json').is_file() and is_intact(target), f"Format '{name}': 'write' must make its folder with new_bundle."
    assert form.is_it(target) and not form.is_it(folder), f"Format '{name}': 'is_it' must be true of what 'write' made, and of nothing else."
    others = [n for n, other in FORMATS.items() if other.is_it is not form.is_it and other.is_it(target)]
    assert not others, f"Format '{name}': what it writes is also taken for {others}."
    expected, back = form.cut(given, target) if form.cut else given, form.read(target)
    same = compare(expected, back, form.hidden)
    n, things = same['pictures'][0], same['annotations'][0]
    whole = same['pictures'] == [n, n] and same['annotations'] == [things, things] and same['same_category'] == things
    assert whole and same['box_error'] < .05, f"Format '{name}': 'read' gives back something else than was written: {same}."
    assert not form.masks or same['equal_masks'] == sum(len(p.visible) for p in given.pictures), f"Format '{name}' says masks, but loses some."
    assert not form.poses or same['pose_error'] < 1e-6 and not same['lost_poses'], f"Format '{name}' says poses, but loses some."
    pool = read_pool(target)
    seen = {given.categories[a.category] for p in given.pictures for a in p.visible}
    assert len(pool) == n and set(pool.classes) == seen, f"Format '{name}' cannot be trained on: read_pool gives {len(pool)} pictures of {pool.classes}."
    assert [len(t.label) for t in read_pool(folder).truths] == [len(t.label) for t in pool.truths], f"Format '{name}' is not found by its name."

@pytest.mark.parametrize('name', FORMATS)
def test_every_format_is_written_read_and_trained_on(many, tmp_path, name):
    check_format(name, FORMATS[name], sorted(many.iterdir())[:4], tmp_path)

@pytest.mark.parametrize('module', [m.name for m in pkgutil.iter_modules(inspect_lib.formats.__path__)])
def test_every_format_has_its_entry(module):
    "A chapter that writes, reads and recognises sets holds a format"
    own = {name: f for name, f in vars(importlib.import_module(f'inspect_lib.formats.{module}')).items() if getattr(f, '__module__', '').endswith(f'.{module}')}
    listed = {f for form in FORMATS.values() for f in (getattr(form.write, 'func', form.write), form.read, form.is_it)}
    for name in [name[5:] for name in own if name.startswith('read_')]:
        offered = [own.get(f'{verb}_{name}') for verb in ('write', 'read', 'is')]
        assert None in offered or set(offered) <= listed, f"write_{name}, read_{name} and is_{name} have no entry in FORMATS of nbs/formats/11_export.ipynb."

@pytest.mark.parametrize('part', PARTS)
def test_a_format_without_a_part_is_named(many, tmp_path, part):
    with pytest.raises(AssertionError, match=f"Format 'new' lacks '{part}'"):
        check_format('new', replace(FORMATS['voc'], **{part: None}), sorted(many.iterdir())[:2], tmp_path)

def test_a_format_that_promises_too_much_is_named(many, tmp_path):
    paths, voc = sorted(many.iterdir())[:2], FORMATS['voc']
    def fewer(folder):
        back = voc.read(folder)
        return replace(back, pictures=tuple(replace(p, annotations=p.annotations[1:]) for p in back.pictures))
    cases = [(replace(voc, read=fewer), 'something else than was written'), (replace(voc, poses=True), 'says poses'),
             (replace(voc, is_it=lambda path: True), 'of nothing else'), (replace(FORMATS['yolo'], masks=True), 'says masks'),
             (replace(voc, write=lambda given, folder: folder.mkdir(parents=True)), 'new_bundle')]
    for i, (form, why) in enumerate(cases):
        with pytest.raises(AssertionError, match=why): check_format('new', form, paths, tmp_path/str(i))

# ---------------------------------------------------------------- from format to format

def test_one_format_becomes_another_without_loss(tmp_path):
    found = read_annotations(write_sample(tmp_path/'frames', 4))
    write_coco(found, tmp_path/'coco', polygons=True)
    write_yolo(read_coco(tmp_path/'coco'), tmp_path/'yolo', segments=True)
    write_voc(read_yolo(tmp_path/'yolo'), tmp_path/'voc')
    same = compare(found, read_voc(tmp_path/'voc'))
    n = same['annotations'][0]
    assert same['annotations'] == [n, n] and same['equal_masks'] == same['same_category'] == n and same['box_error'] < .05
    for p in found.pictures:
        assert (np.asarray(Image.open(tmp_path/'voc'/'JPEGImages'/f'{p.name}.png')) == read_frame(p.path).arrays['colors']).all()

def test_jpegs_of_a_user_are_copied_as_they_are(tmp_path):
    for i in range(3): write_image(tmp_path/'in'/'images'/f'{i}.jpg', np.full((30, 40, 3), 50*i, np.uint8))
    things = lambda i: (Annotation(1, [1, 2, 11.5, 20]),)*i
    users = AnnotatedSet(tuple(Picture(str(i), tmp_path/'in'/'images'/f'{i}.jpg', 30, 40, things(i)) for i in range(3)), {1: 'Blech Ü'})
    for name in ('coco', 'yolo', 'voc', 'crops'):
        export_frames(users, tmp_path/'out', [name])
        assert verify_export(users, tmp_path/'out', name)['box_error'] < .01
    assert (tmp_path/'out'/'coco'/'images'/'2.jpg').read_bytes() == (tmp_path/'in'/'images'/'2.jpg').read_bytes()
    for name in ('folders', 'bop'):
        with pytest.raises(UserError, match='no frame'): export_frames(users, tmp_path/'out', [name])
    with pytest.raises(UserError, match='without a mask'): export_frames(users, tmp_path/'out', ['yolo_seg'])

# ---------------------------------------------------------------- processes, disks, other people's files

HANGS = ("import sys, time; from pathlib import Path; import inspect_lib.formats.coco as coco\n"
        "put, done = coco.copy_picture, []\n"
        "def hang(*given): done.append(1); time.sleep(600*(len(done) > 5)); return put(*given)\n"
        "coco.copy_picture = hang\n"
        "from inspect_lib.formats.export import export_frames\n"
        "export_frames(sorted(Path(sys.argv[1]).glob('*.hdf5')), sys.argv[2], ['coco'])")

def start(frames, out): return subprocess.Popen([sys.executable, '-c', HANGS, frames, out], stderr=subprocess.PIPE, text=True)

def wait_for(path, n, process):
    "Until n pictures are there"
    end = time.monotonic() + 60
    while len(list(path.glob('*.png'))) < n:
        assert process.poll() is None and time.monotonic() < end, 'it ended before it could be caught'
        time.sleep(.01)

@pytest.fixture(scope='module')
def many(tmp_path_factory):
    "Twelve small frames"
    folder = tmp_path_factory.mktemp('many')
    write_sample(folder, 12, size=(32, 24))
    return folder

def test_killed_export_leaves_nothing_and_the_next_one_is_whole(many, tmp_path):
    process = start(many, tmp_path)
    wait_for(tmp_path/'.coco.part'/'images', 5, process)
    other = start(many, tmp_path) # Two at once: the second is refused
    assert other.wait(60) and 'Another process is at work' in other.stderr.read()
    process.send_signal(signal.SIGKILL); process.wait()
    assert not (tmp_path/'coco').exists() and (tmp_path/'.coco.part').exists()
    export_frames(sorted(many.iterdir()), tmp_path, ['coco'])
    assert [p.name for p in tmp_path.iterdir()] == ['coco']
    assert verify_export(sorted(many.iterdir()), tmp_path, 'coco')['same_pictures'] == 12

def test_killed_while_replacing_keeps_one_whole_export(many, tmp_path):
    paths = sorted(many.iterdir())[:2]
    export_frames(paths, tmp_path, ['coco'])
    (tmp_path/'coco').rename(tmp_path/'.coco.old') # Between the two renames
    (tmp_path/'.coco.part').mkdir()
    with pytest.raises(UserError, match='no frame'): export_frames([], tmp_path, ['coco'])
    export_frames(paths, tmp_path, ['coco'])
    verify_export(paths, tmp_path, 'coco')
    assert [p.name for p in tmp_path.iterdir()] == ['coco']

@pytest.mark.parametrize('name', FORMATS)
def test_disk_full_in_the_middle(many, tmp_path, monkeypatch, name):
    "The old export stays, nothing half-written does"
    paths = sorted(many.iterdir())[:3]
    export_frames(paths, tmp_path, [name])
    before, real, calls = tree_hash(tmp_path/name), Path.write_bytes, []
    def full(self, data):
        calls.append(self)
        if len(calls) > 2: raise OSError(28, 'No space left on device')
        return real(self, data)
    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(UserError, match='disk is full'): export_frames(paths, tmp_path, [name])
    assert tree_hash(tmp_path/name) == before and [p.name for p in tmp_path.iterdir()] == [name]

@pytest.mark.parametrize('name', FORMATS)
def test_other_peoples_files_stay(many, tmp_path, name):
    paths = sorted(many.iterdir())[:2]
    export_frames(paths, tmp_path, [name])
    (tmp_path/name/'my notes.txt').write_text('mine')
    before = {k: p.read_bytes() for k, p in folder_files(tmp_path).items()}
    with pytest.raises(UserError, match="e.g. 'my notes.txt'"): export_frames(paths, tmp_path, [name])
    assert {k: p.read_bytes() for k, p in folder_files(tmp_path).items()} == before
    (tmp_path/name/'export.json').unlink()
    with pytest.raises(UserError, match='no export'): export_frames(paths, tmp_path, [name])
    with pytest.raises(UserError, match='no export'): verify_export(paths, tmp_path, name)

def refused(paths, folder, name, what):
    "Damage is a UserError; anything else is a failure that names the format and the damage"
    try: verify_export(paths, folder, name)
    except UserError: return
    except Exception as error: pytest.fail(f"Format '{name}': {what}, and that is no UserError but {type(error).__name__}: {error}. 'read' must say what is wrong.")
    pytest.fail(f"Format '{name}': {what}, and 'verify_export' takes it.")

@pytest.mark.parametrize('name', FORMATS)
def test_damage_is_found(many, tmp_path, name):
    "A file gone, a file of another frame, a broken list: one sentence each"
    paths = sorted(many.iterdir())[:3]
    export_frames(paths, tmp_path, [name])
    files = sorted(p for p in folder_files(tmp_path/name).values() if p.name != 'export.json')
    for path in files[::max(1, len(files)//5)]:
        kept = path.read_bytes()
        path.unlink()
        refused(paths, tmp_path, name, f'{path.name} is missing')
        for end in (len(kept)//2, len(kept) - 1):
            path.write_bytes(kept[:end])
            refused(paths, tmp_path, name, f'{path.name} ends after {end} of {len(kept)} bytes')
        path.write_bytes(kept)
    verify_export(paths, tmp_path, name)

def test_other_frames_are_told_apart(many, tmp_path):
    paths = sorted(many.iterdir())
    export_frames(paths[:3], tmp_path, FORMATS)
    for name in FORMATS:
        with pytest.raises(UserError, match='not what was rendered'): verify_export(paths[:4], tmp_path, name)
    write_sample(tmp_path/'others', 3, seed=5, size=(32, 24))
    for name in FORMATS:
        with pytest.raises(UserError, match='not what was rendered'): verify_export(sorted((tmp_path/'others').iterdir()), tmp_path, name)

# ---------------------------------------------------------------- bad frames

def test_bad_frames_are_named(tmp_path):
    arrays, draw, attributes = draw_frame(generator(0, 'bad'))
    write_frame(tmp_path/'0.hdf5', {'colors': arrays['colors']}, draw, attributes)
    with pytest.raises(UserError, match="0.hdf5: key 'instance_segmaps' is missing"): export_frames([tmp_path/'0.hdf5'], tmp_path/'out', ['coco'])
    for segmap, why in ((arrays['instance_segmaps'].astype(np.float32), 'whole numbers'), (arrays['instance_segmaps'].astype(np.int16) - 1, 'whole numbers'),
                        (arrays['instance_segmaps'] + np.uint8(20), 'nothing is said')):
        write_frame(tmp_path/'0.hdf5', arrays | dict(instance_segmaps=segmap), draw, attributes)
        with pytest.raises(UserError, match=why): export_frames([tmp_path/'0.hdf5'], tmp_path/'out', ['coco'])
    (tmp_path/'0.hdf5').write_bytes(b'not a frame')
    with pytest.raises(UserError, match='0.hdf5'): export_frames([tmp_path/'0.hdf5'], tmp_path/'out', ['coco'])
    with pytest.raises(UserError, match='does not exist'): export_frames([tmp_path/'1.hdf5'], tmp_path/'out', ['coco'])
    with pytest.raises(UserError, match='no frame'): export_frames([], tmp_path/'out', ['coco'])
    assert not (tmp_path/'out').exists()

def test_huge_run_lengths_do_not_eat_the_memory(tmp_path):
    "A mask for a picture of 10^12 pixels, a count that overflows: refused before anything is unpacked"
    write_image(tmp_path/'a.png', np.zeros((40, 60, 3), np.uint8))
    base = dict(images=[dict(id=1, file_name='a.png', width=60, height=40)], categories=[dict(id=1, name='a')])
    for shape in (dict(size=[10**6, 10**6], counts='0'), dict(size=[40, 60], counts='oooooooooooo0'),
                  dict(size=[40, 60], counts=[10**12]), dict(size=[40, 60], counts=[-5, 2405])):
        row = dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], segmentation=shape)
        write_json(tmp_path/'a.json', base | dict(annotations=[row]))
        with pytest.raises(UserError, match='annotation 1: its run lengths'): read_coco(tmp_path/'a.json')

def test_lost_poses_are_missed(many, tmp_path):
    "A list whose hashes were made good again: the content still is not what was rendered"
    from inspect_lib.core.file import file_hash, read_json
    paths = sorted(many.iterdir())[:2]
    export_frames(paths, tmp_path, ['coco'])
    path, listed = tmp_path/'coco'/'annotations.json', read_json(tmp_path/'coco'/'export.json')
    data = read_json(path)
    for change in (dict(attributes={}), dict(bbox=[0, 0, 9, 9]), dict(category_id=2 if data['annotations'][0]['category_id'] != 2 else 1)):
        write_json(path, data | dict(annotations=[data['annotations'][0] | change, *data['annotations'][1:]]))
        write_json(tmp_path/'coco'/'export.json', listed | dict(files=listed['files'] | {'annotations.json': file_hash(path)}))
        what = dict(attributes='poses', bbox='boxes', category_id='categories')[next(iter(change))]
        with pytest.raises(UserError, match=f'not what was rendered: {what} differ'): verify_export(paths, tmp_path, 'coco')
