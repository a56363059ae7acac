"""Explanations on what users bring: masks that do not fit, models of another kind, one picture, no mask at all."""
import shutil

import numpy as np
import pytest
import yaml

import conftest
from conftest import add_line
from inspect_lib.core.error import UserError
from inspect_lib.core.file import write_json
from inspect_lib.core.image import write_image
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.core.seed import generator
from inspect_lib.judge.attribution import Attribution
from inspect_lib.judge.evaluation import CONTROL, EvalConfig, Query, evaluate, findings, mean_interval, random_maps, summarise
from inspect_lib.model.defect_aux_net import DefectAuxNet
from inspect_lib.judge.faithful import FILLS, energy_pointing_game, fill, pointing_game, removal_curves
from inspect_lib.run.store import list_runs

PARAMS = '''queries: data/line
query_kind: real
references: data/line
methods: [grad-cam, occlusion]
n_queries: 2
n_background: 4
steps: 4
side: 32
'''


@pytest.fixture
def line(workspace): return add_line(workspace, '50_explain', PARAMS, good=2, first=50)


def test_two_methods_become_a_report(line, cli, open_file):
    done = cli('run', '50_explain', 'line')
    assert done.returncode == 0, done.stderr
    record = list_runs(open_workspace(line))[0]
    folder, found = line/'reports'/record['path'], record['metrics']
    assert set(found['methods']) == {'grad-cam', 'occlusion', CONTROL} and found['masks'] == 2
    assert all(figures['energy']['n'] == figures['deletion']['n'] == 2 for figures in found['methods'].values())
    assert found['methods']['occlusion']['sanity']['value'] < 1 and found['methods'][CONTROL]['sanity']['value'] is None
    assert found['usable'] == [] # Two pictures show nothing
    assert len((folder/'explanations.csv').read_text().splitlines()) == 1 + 3*2
    page = open_file(folder/'report.html')
    assert page.complaints == [] and page.locator('.pairs img').count() == 2*2
    assert page.get_by_text('too few to judge explanations by').count() == 1 and page.get_by_text('The network was never trained').count() == page.get_by_text('It was never trained on them').count() == 1
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    assert str(line) not in (folder/'report.html').read_text()


def run_cells(line, until='', **given) -> dict:
    return conftest.run_cells('50_explain', line, until, **yaml.safe_load(PARAMS) | given)


def test_without_masks_nothing_is_said_about_the_place(line):
    folder, old = line/'data'/'line', line/'data'/'old'
    folder.rename(old)
    for name in ('good', 'spot'): shutil.copytree(old/'test'/name, folder/name) # Class folders, not MVTec-AD
    shutil.copytree(old/'train'/'good', folder/'good', dirs_exist_ok=True)
    names = run_cells(line, query_split='', methods=['grad-cam'])
    assert names['summary']['grad-cam']['energy'] == dict(value=None, low=None, high=None, n=0, groups=0)
    assert names['summary']['grad-cam']['deletion']['n'] == 2 and names['masked'] == 0
    assert findings(names['summary']['grad-cam'])['place'] == 'unknown'
    assert 'Not asked here: Does it point to the defect?' in names['report'] and '0 of 2 explained' in names['report']


@pytest.mark.parametrize('target', ['class', 'mask', 'boxes'])
def test_each_head_of_a_network_of_defects_is_explained(line, target):
    "One that takes pictures of any size, so that side says at which"
    DefectAuxNet.build(dict(backbone='inspect-tiny', box_strides=(8, 16), min_anchor=12, pixel_threshold=.02)).save(line/'data'/'net')
    names = run_cells(line, model='data/net', target=target, side=64, methods=['grad-cam', 'guided-grad-cam'])
    assert set(names['summary']) == {'grad-cam', 'guided-grad-cam', CONTROL} and names['measured']['explained'] == target
    assert names['summary']['grad-cam']['energy']['n'] == names['summary']['grad-cam']['deletion']['n'] == 2
    assert names['results'][0].rows.note.str.contains('bottom_up').all() and f'what the network says of its {target}' in names['report']


def test_what_a_network_of_defects_cannot_explain_is_said(line):
    DefectAuxNet.build(dict(backbone='inspect-tiny', tasks=('segment',), pixel_threshold=.999)).save(line/'data'/'net')
    with pytest.raises(UserError, match='takes pictures of any size; give side'): run_cells(line, model='data/net', side=None)
    with pytest.raises(UserError, match="has no 'boxes' to explain; it has verdict, mask"): run_cells(line, model='data/net', target='boxes', side=64)
    with pytest.raises(UserError, match='could explain none of 2 pictures; .* no pixel is called defective'): run_cells(line, model='data/net', target='mask', side=64)


def test_one_picture_has_no_interval(line):
    names = run_cells(line, n_queries=1, methods=['grad-cam'])
    figures = names['summary']['grad-cam']
    assert figures['deletion']['n'] == 1 and figures['deletion']['low'] is None and names['conclusion'].level == 'caution'
    assert set(findings(figures).values()) <= {'caution', 'unknown'}
    assert '1 pictures in 1 groups are too few' in names['conclusion'].rates


def test_an_empty_mask_is_an_unknown_place(line):
    for i in range(8): write_image(line/'data'/'line'/'ground_truth'/'spot'/f'{i}_mask.png', np.zeros((40, 56), bool))
    with pytest.raises(UserError, match='no pixel is marked'): run_cells(line, methods=['grad-cam'])
    names = run_cells(line, methods=['grad-cam'], empty_masks='unknown')
    assert names['masked'] == 0 and names['summary']['grad-cam']['pointing']['n'] == 0


def small_masks(line):
    for i in range(8): write_image(line/'data'/'line'/'ground_truth'/'spot'/f'{i}_mask.png', np.ones((9, 9), bool))


def bank(line):
    "A folder of an anomaly run"
    write_json(line/'data'/'other'/'bank.json', dict(inspect_lib_bank=1)) # As versions before 0.2 wrote it


def foreign(line):
    write_json(line/'data'/'other'/'model.json', dict(some='thing'))
    (line/'data'/'other'/'model.safetensors').write_bytes(b'nothing')


def no_defect(line):
    for place in ('test/spot', 'ground_truth'): shutil.rmtree(line/'data'/'line'/place)


@pytest.mark.parametrize('spoil, given, why', [
    (small_masks, {}, '0_mask.png is 9 x 9 pixels, its picture 56 x 40'),
    (bank, dict(model='data/other'), 'is no model'),
    (foreign, dict(model='data/other'), 'data/other'),
    (None, dict(model='data/othr'), 'does not exist in the workspace'),
    (no_defect, {}, '0 pictures are defective'),
    (None, dict(methods=['gradcam']), "no method 'gradcam' to explain. Did you mean 'grad-cam'?"),
    (None, dict(layer='nowhere'), "The network has no layer 'nowhere'"),
    (None, dict(n_background=40), 'The background is to have 40 good pictures'),
    (None, dict(n_background=1), 'at least 2 pictures, got 1'),
    (None, dict(n_queries=40), '8 pictures are defective, fewer than the 40'),
    (None, dict(good=['god']), "There is no label 'god' to count as good. Did you mean 'good'?"),
    (None, dict(fill='noise'), "Places cannot be filled by 'noise'"),
    (None, dict(steps=0), 'at least one step'),
    (None, dict(block=0), 'at least 1 pixel'),
    (None, dict(soft=-1.), 'softer than 0'),
    (None, dict(noise=-.1), 'The strength of noise must be at least 0'),
    (None, dict(tolerance=-.1), 'The tolerance of the pointing game must be at least 0'),
    (None, dict(side=8), 'must lie in 16..1024'),
])
def test_mistakes_are_one_sentence(line, spoil, given, why):
    if spoil: spoil(line)
    with pytest.raises(UserError) as refused: run_cells(line, **given)
    assert why in str(refused.value) and '\n' not in str(refused.value)


def test_a_mistake_is_found_before_the_work(line, monkeypatch):
    "Options and names are refused before the first explanation, not after an hour"
    import inspect_lib.judge.evaluation as module
    def never(*_, **__): raise AssertionError('it was worked on')
    monkeypatch.setattr(module, 'evaluate_query', never)
    for given in (dict(methods=['grad-cam', 'gradcam']), dict(fill='noise'), dict(steps=0), dict(block=0)):
        with pytest.raises(UserError): run_cells(line, **given)


@pytest.mark.parametrize('size', [(7, 7), (33, 20), (8, 64)])
@pytest.mark.parametrize('by', sorted(FILLS))
def test_curves_of_any_size(size, by):
    "Sizes that blocks do not divide; both curves begin and end at the same two pictures"
    rng = generator(0, 'sizes', *size)
    image = rng.random((3, *size)).astype(np.float32)
    curves = removal_curves(image, rng.standard_normal(size), lambda x: x.mean((1, 2, 3)), fill(image, by), rng, 5, 8, 2.)
    assert len(curves.share) == 6 and curves.share[0] == 0 and np.isclose(curves.share[-1], 1)
    assert np.isclose(curves.deletion[0], curves.insertion[-1]) and np.isclose(curves.deletion[-1], curves.insertion[0])


@pytest.mark.parametrize('seed', range(5))
def test_chance_is_what_it_says(seed):
    "Over many random masks and maps no gain over chance is seen, whatever the shape"
    rng = generator(seed, 'chance')
    size = tuple(rng.integers(8, 40, 2))
    found = []
    for _ in range(300):
        mask = rng.random(size) < rng.uniform(.05, .5)
        mask[0, 0] = True
        hit, luck = pointing_game(rng.random(size), mask, float(rng.integers(0, 3)))
        inside, area = energy_pointing_game(rng.random(size)**3, mask)
        found.append((hit - luck, inside - area))
    for gain in zip(*found): assert abs(np.mean(gain)) < 4*np.std(gain)/300**.5 + 1e-9


def test_intervals_hold_what_they_promise():
    "Of 200 samples of eight parts, photographed twice each, about 95 % have the truth in their interval"
    inside = []
    for i in range(200):
        rng = generator(i, 'coverage')
        parts = rng.normal(.3, 1, 8)
        found = mean_interval(np.repeat(parts, 2) + rng.normal(0, .2, 16), np.repeat(range(8), 2), rng)
        inside.append(found['low'] < .3 < found['high'])
    assert .89 < np.mean(inside) < .99


def test_a_picture_without_anything():
    "A flat picture, a score that never changes and maps without values: every figure is what chance would reach"
    queries = [Query(np.full((3, 32, 32), .5, np.float32), np.eye(32, dtype=bool), str(i), str(i)) for i in range(6)]
    flat = lambda x: np.zeros(len(x))
    empty = lambda image: Attribution(np.zeros(image.shape[1:]))
    found = summarise([evaluate('empty', empty, queries, flat, EvalConfig(), 0, empty),
                       evaluate(CONTROL, random_maps(0), queries, flat, EvalConfig(), 0)], 0)['empty']
    assert np.isclose(found['energy']['value'], 1/32) and np.isclose(found['energy_gain']['value'], 0)
    assert found['faithfulness']['value'] == 0 and found['silent']['value'] == 1
    assert findings(found)['sane'] == 'unknown' and 'good' not in findings(found).values()
