"Valid files of every format, with one value, type, key or nesting changed at a time: a result or a UserError, nothing else, and soon"
import json
import time
from copy import deepcopy
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema.exceptions import best_match

from inspect_lib.core.error import UserError
from inspect_lib.core.file import canonical, write_json
from inspect_lib.core.paths import workspace
from inspect_lib.core.schema import TEXT, _fits, _validator, check_schema, closed, list_of, read_checked, record, values_of, whole
from inspect_lib.data.frame import read_frame, write_frame
from inspect_lib.data.roi import read_rois
from inspect_lib.data.visibility import frame_label, visibility_table
from inspect_lib.formats.annotation import AnnotatedSet, Annotation, Picture, read_annotations
from inspect_lib.formats.bop import read_bop, read_bop_depth
from inspect_lib.formats.bundle import is_intact, new_bundle, write_png
from inspect_lib.formats.channel import read_channel_set, write_channels
from inspect_lib.formats.coco import read_coco, write_coco
from inspect_lib.model.patchcore import PatchCore
from inspect_lib.model.registry import load_model
from inspect_lib.net.weights import card_digest
from inspect_lib.render.config import find_seed, read_config
from inspect_lib.run.store import RECORD, _seal_of, list_runs, read_record, sweep_runs, verify_run
from inspect_lib.serve.session import read_results
from inspect_lib.sweep.sweep_index import list_sweeps, read_runs

HUGE = [None, True, -1, 0, 2**63, 2**64, -2**63, 10**400, 1e308, float('nan'), float('inf'), '', 'x', 'x'*10**6, '..', '\0', '\ud800',
        [], {}, [[]], [None], {'': None}, [0]*1000, ['x']*4, 0.5, '5', [[1, 2], 'x']]
ODD = st.sampled_from(HUGE) | st.integers() | st.floats() | st.text(max_size=5) | st.integers(50, 3000).map(lambda n: DEEP(n))


class DEEP(int):
    "A list so deep that it is written as text, for Python's own writer cannot"


def places(value, path=()) -> list[tuple]:
    "Every place in plain data"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, v in inner for place in places(v, (*path, key))]


def changed(value, path, how, odd):
    "A copy with one place changed: another value, away, twice, under another name, or one level deeper"
    if not path: return [value] if how == 'deeper' else odd
    copy = deepcopy(value)
    at = copy
    for key in path[:-1]: at = at[key]
    key = path[-1]
    if how == 'value': at[key] = odd
    elif how == 'deeper': at[key] = [at[key]]
    elif how == 'gone': del at[key]
    elif isinstance(at, list): at.append(at[key])
    else: at['other' if how == 'twice' else str(odd)[:50]] = at.pop(key)
    return copy


def text_of(value) -> str:
    "As JSON, with what Python's writer cannot write"
    return json.dumps(value, default=str) if not _deep(value) else json.dumps(_marked(value)).replace('"<deep>"', '['*3000 + ']'*3000)


def _deep(value) -> bool:
    return isinstance(value, DEEP) or any(map(_deep, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def _marked(value):
    if isinstance(value, DEEP): return '<deep>'
    if isinstance(value, dict): return {k: _marked(v) for k, v in value.items()}
    return [_marked(v) for v in value] if isinstance(value, list) else value


MUTATION = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def tried(value, data, write, read):
    "Change one thing of a valid file, write and read it: a result or one sentence"
    path = data.draw(st.sampled_from(places(value)))
    bad = changed(value, path, data.draw(st.sampled_from(['value', 'value', 'gone', 'deeper', 'twice', 'renamed'])), data.draw(ODD))
    write(text_of(bad), bad)
    start = time.perf_counter()
    try: read()
    except UserError as error: assert len(str(error)) < 2000
    assert time.perf_counter() - start < 10


# --- the check itself

SCHEMAS = [record('r', ['a'], a=TEXT, b=whole(maximum=9)), closed('c', ['a'], a=list_of(TEXT, 1, 2)), values_of(whole()),
           list_of(values_of(dict(type=['number', 'null']))), record('p', a=dict(type='string', pattern=r'\Aa+\Z')),
           record('n', a=record('m', ['b'], b=dict(type='boolean')), b=dict(enum=['a', 1]))]
PLAIN = st.recursive(st.none() | st.booleans() | st.integers(-3, 12) | st.floats(-3, 12).map(lambda v: round(v, 1)) | st.sampled_from(['', 'a', 'aa', 'a\n', 'b']),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('abc'), inner, max_size=3), max_leaves=6)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(schema=st.sampled_from(SCHEMAS), value=PLAIN)
def test_the_quick_check_never_says_yes_where_jsonschema_says_no(schema, value):
    error = best_match(_validator()(schema).iter_errors(value))
    if _fits(value, schema): assert error is None
    elif 'enum' not in str(schema): assert error is not None
    if error is None: check_schema(value, 'x.json', schema)
    else:
        with pytest.raises(UserError, match='x.json, '): check_schema(value, 'x.json', schema)


def test_sentences_stay_short(tmp_path):
    write_json(tmp_path/'x.json', dict(a=['y'*10**6]*3, b='z'*10**6))
    with pytest.raises(UserError) as error: read_checked(tmp_path/'x.json', SCHEMAS[0])
    assert len(str(error.value)) < 400


# --- records

KEY = '0123456789abcdef'
RUN = dict(pipeline='30_similarity', name='nut', key=KEY, state='done', started='2026-01-01T00:00:00+00:00', finished='2026-01-01T00:00:01+00:00',
           duration_s=1.5, headline='Good', params=dict(seed=1), inputs=dict(a=dict(path='data/a', sha256='ff')), metrics=dict(f1=dict(value=.5)),
           usage=dict(seconds=1.), versions=dict(python='3'), machine=dict(system='x', processors=2), outputs={'a.txt': 'ff'},
           git=dict(revision='ab', dirty=False), error=dict(name='X', text='y', cell=3), attempts=[dict(started='x')], seal='ff')
SWEEP = dict(name='s', title='', state='done', started='x', headline='y', order=['a'], spec=dict(steps=dict(a=dict(notebook='x')), report=dict(metric='f1', axes=['k'])),
             runs=[dict(pipeline='30_similarity', name='nut', key=KEY, step='a', index=0, params=dict(k=1))], later=[dict(step='a', state='waiting', params={})],
             failed_searches=dict(a='why'))


@pytest.fixture(scope='module')
def ws(tmp_path_factory):
    return replace(workspace(), reports=tmp_path_factory.mktemp('reports'))


@MUTATION
@given(data=st.data())
def test_records_of_runs(ws, data):
    folder = ws.reports/'30_similarity'/'nut'/KEY
    folder.mkdir(parents=True, exist_ok=True)

    def write(text, bad):
        try: text = json.dumps(bad | dict(seal=_seal_of(bad))) if isinstance(bad, dict) else text
        except (ValueError, TypeError, RecursionError): pass
        (folder/RECORD).write_text(text)

    def read():
        assert [run['key'] for run in list_runs(ws)] == [KEY]
        read_record(folder)
        verify_run(folder)
    tried(RUN, data, write, read)


@MUTATION
@given(data=st.data())
def test_records_of_sweeps(ws, data):
    file = ws.reports/'sweeps'/'s'/'sweep.json'
    file.parent.mkdir(parents=True, exist_ok=True)

    def read():
        assert [sweep['name'] for sweep in list_sweeps(ws)] == ['s']
        sweep_runs(ws, 's')
        read_runs('s', ws)
    tried(SWEEP, data, lambda text, _: file.write_text(text), read)


# --- models, sets, frames, logs

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    PatchCore.example().save(folder := tmp_path_factory.mktemp('model'))
    return folder


@MUTATION
@given(data=st.data())
def test_cards(model, data):
    whole_card = json.loads((model/'model.json').read_text())
    card = {k: v for k, v in whole_card.items() if k != 'novelty'} | dict(roi=[0, 0, 9, 9], padding=.1, band=[.4, .6], white_level=255, good=['a'])

    def write(text, bad):
        try: text = json.dumps(bad | dict(digest=card_digest(bad))) if isinstance(bad, dict) else text
        except (ValueError, TypeError, RecursionError): pass
        (model/'model.json').write_text(text)
    try: tried(card, data, write, lambda: load_model(model).predict([np.zeros((40, 40, 3), np.uint8)]))
    finally: (model/'model.json').write_text(json.dumps(whole_card))


@pytest.fixture(scope='module')
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp('frames')
    colors, segments = np.zeros((8, 10, 3), np.uint8), np.zeros((8, 10), np.int32)
    segments[2:5, 3:7] = 1
    pose = np.eye(4).tolist()
    draw = dict(label='nut', group='g', shows=['nut'], min_visible_share=.1, camera=dict(K=np.eye(3).tolist(), pose=pose), distractors=[], wanted_distractors=0)
    attributes = [dict(idx=1, name='nut', category='nut', category_id=1, visible_share=1., in_frame_share=1., pose=pose, size=[1., 1., 1.], amodal_box=[3, 2, 7, 5])]
    write_frame(folder/'0.hdf5', dict(colors=colors, depth=np.ones((8, 10), np.float32), instance_segmaps=segments, category_id_segmaps=segments), draw, attributes)
    return folder, draw, attributes


@MUTATION
@given(data=st.data(), key=st.sampled_from(['draw', 'instance_attribute_maps']))
def test_texts_in_frames(frames, tmp_path_factory, data, key):
    folder, draw, attributes = frames
    path = folder/'0.hdf5'
    good = dict(draw=draw, instance_attribute_maps=attributes)

    def put(text):
        with h5py.File(path, 'a') as file: del file[key]; file[key] = np.bytes_(text.encode(errors='replace'))

    def read():
        frame_label(read_frame(path))
        visibility_table([path])
        read_annotations([path])
    try: tried(good[key], data, lambda text, _: put(text), read)
    finally: put(canonical(good[key]))


@MUTATION
@given(data=st.data())
def test_frames_as_png(frames, data):
    folder = frames[0]/'channels'
    write_channels(read_annotations([frames[0]/'0.hdf5']), folder)
    file = folder/'annotations'/'0.json'
    tried(json.loads(file.read_text()), data, lambda text, _: file.write_text(text), lambda: read_channel_set(folder))


@MUTATION
@given(data=st.data())
def test_list_of_an_export(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp('export')/'e'
    with new_bundle(folder, 'x', padding=.1) as part: (part/'a.txt').write_text('a')
    manifest = json.loads((folder/'export.json').read_text())

    def read():
        is_intact(folder)
        with new_bundle(folder, 'x') as part: (part/'a.txt').write_text('b')
    tried(manifest, data, lambda text, _: (folder/'export.json').write_text(text), read)


@pytest.mark.parametrize('name', ['camera', 'gt', 'gt_info'])
@settings(MUTATION, max_examples=30)
@given(data=st.data())
def test_bop(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp('bop')
    write_png(folder/'rgb'/'000000.png', np.zeros((8, 10, 3), np.uint8))
    files = dict(camera={'0': dict(cam_K=[1, 0, 5, 0, 1, 4, 0, 0, 1], cam_R_w2c=[1, 0, 0, 0, 1, 0, 0, 0, 1], cam_t_w2c=[0, 0, 0], depth_scale=1.)},
                 gt={'0': [dict(obj_id=1, cam_R_m2c=[1, 0, 0, 0, 1, 0, 0, 0, 1], cam_t_m2c=[0, 0, 9])]},
                 gt_info={'0': [dict(bbox_visib=[1, 1, 3, 3], bbox_obj=[1, 1, 3, 3], visib_fract=1.)]})
    for key, value in files.items(): write_json(folder/f'scene_{key}.json', value)

    def read():
        read_bop(folder)
        read_bop_depth(folder, 0)
    tried(files[name], data, lambda text, _: (folder/f'scene_{name}.json').write_text(text), read)


@MUTATION
@given(data=st.data())
def test_coco(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp('coco')
    write_png(folder/'0.png', np.zeros((8, 10, 3), np.uint8))
    write_coco(AnnotatedSet((Picture('0', folder/'0.png', 8, 10, (Annotation(1, [1, 1, 4, 4]),)),), {1: 'nut'}), folder/'set')
    file = folder/'set'/'annotations.json'
    tried(json.loads(file.read_text()), data, lambda text, _: file.write_text(text), lambda: read_coco(folder/'set'))


ROW = dict(image='a.png', score=.5, verdict='IO', part='', part_verdict='', error='', modified=1, threshold=.5, low=.4, high=.6, model='m', time='t')


@MUTATION
@given(data=st.data())
def test_small_files(tmp_path_factory, data):
    "Logs of verdicts, regions, configs and seeds"
    d = tmp_path_factory.mktemp('small')
    tried(ROW, data, lambda text, _: (d/'a.jsonl').write_text(text + '\n'), lambda: read_results(d/'a.jsonl'))
    tried({'a.png': [0, 0, 5, 5], '*': [1, 1, 4, 4]}, data, lambda text, _: (d/'roi.json').write_text(text), lambda: read_rois(d/'roi.json'))
    tried(dict(camera=dict(fstop=[4, 16])), data, lambda text, _: (d/'c.json').write_text(text), lambda: read_config(d/'c.json'))
    tried(dict(seed=5), data, lambda text, _: (d/'seed.json').write_text(text), lambda: find_seed({}, -1, d))


def test_a_time_of_thousands_of_digits(tmp_path):
    "In a log of verdicts as CSV, where every value is text"
    (tmp_path/'a.csv').write_text('\n'.join(','.join(str(v) for v in row) for row in (ROW, (ROW | dict(modified='9'*5000)).values())) + '\n')
    with pytest.raises(UserError, match='in line 2'): read_results(tmp_path/'a.csv')
