"Guided rendering on what users bring: planted answers, foreign pictures, ranges that must stay the user's."
import os
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT
from inspect_lib.core.error import UserError
from inspect_lib.core.file import read_json
from inspect_lib.core.image import write_image
from inspect_lib.core.seed import generator
from inspect_lib.data.frame import write_frame
from inspect_lib.render import render_set as rendering
from inspect_lib.guide.ranges import drawn_values, narrow_ranges, windows_of
from inspect_lib.render.config import config_ranges
from inspect_lib.render.usecase import find_use_case, make_plan, use_cases

USE_CASE = '''
from inspect_lib.core.constraint import check_config, span
from inspect_lib.core.seed import generator, uniform

def check(config):
    return check_config(config, dict(level=[0., 255.], tint=[0., 40.], grain=[2., 10.]),
                        dict(level=span(0, 255), tint=span(0, 255), grain=span(0, 50)))

def draw(config, seed, i):
    drawn = {key: uniform(generator(seed, key, i), ends) for key, ends in config.items()}
    return drawn | dict(label='ab'[i % 2], group=f'wall-{i}', camera=dict(resolution=[40, 32]))

def build(config): pass
def apply(made, draw): pass
'''


def wall(level: float, tint: float, grain: float, rng, shape=(32, 40)) -> np.ndarray:
    "A flat wall, uint8 (H, W, 3)"
    return (rng.normal(level, grain, (*shape, 1)) + [0, 0, tint]).clip(0, 255).astype(np.uint8)


def paint(use_case, config, seed, frames, folder, compression='none'):
    "Stands for `render_set`: frames without Blender"
    plan, paths = make_plan(use_case, config, seed), []
    for i in frames:
        draw = plan.draw(i)
        image = wall(draw['level'], draw['tint'], draw['grain'], generator(seed, 'noise', i))
        paths.append(folder/f'{i:06}.hdf5')
        write_frame(paths[-1], dict(colors=image), draw)
    return paths


@pytest.fixture
def walls(workspace, monkeypatch):
    "A workspace with references (dark, bluish walls; its test split is white), and a use case of one's own"
    ignore = shutil.ignore_patterns('.ipynb_checkpoints')
    shutil.copytree(ROOT/'nbs'/'pipelines', workspace/'nbs'/'pipelines', ignore=ignore)
    own = workspace/'plugins'/'walls_of_mine'
    own.mkdir(parents=True); (own/'wall.py').write_text(USE_CASE)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setenv('INSPECT_LIB_PLUGINS', str(workspace/'plugins'))
    monkeypatch.setattr(rendering, 'render_set', paint)
    rows, folder = ['image,label,group,split'], workspace/'data'/'walls'
    for i in range(24):
        rng, test = generator(0, 'wall', i), i >= 18
        write_image(folder/f'{i}.png', wall(250 if test else rng.uniform(60, 90), 20, 5, rng))
        rows.append(f'{i}.png,wall,wall-{i},{"test" if test else "train"}')
    (folder/'index.csv').write_text('\n'.join(rows))
    yield workspace
    for name in ('walls_of_mine.wall', 'walls_of_mine'): sys.modules.pop(name, None)


def run_cells(root, **given) -> dict:
    "What the pipeline's code cells leave, run in this process"
    names, old = dict(__name__='pipeline'), dict(os.environ)
    given = dict(use_case='walls_of_mine.wall', config={}, references='data/walls', reference_kind='real', encoder='',
                 n_frames=24, n_eval=16, rounds=2, keep_share=.25) | given
    os.environ |= dict(INSPECT_LIB_ROOT=str(root), TQDM_DISABLE='1', MPLBACKEND='agg')
    try:
        for cell in nbformat.read(ROOT/'nbs'/'pipelines'/'12_guide.ipynb', 4).cells:
            if cell.cell_type == 'code': exec(cell.source, names)
            if 'parameters' in cell.metadata.get('tags', []): names |= given
    finally:
        os.environ.clear(); os.environ.update(old)
        plt.close('all')
    return names


def test_a_planted_shift_is_found_and_adapted_to(walls, open_file):
    names = run_cells(walls)
    folder, user = names['run'].folder, names['user']
    results = read_json(folder/'metrics.json')
    low, high = names['now']['level']
    assert results['metrics']['evaluation']['all']['reduction']['low'] > 0
    assert 'are nearer to real pictures' in results['headline']
    assert low < 75 < high and 0 <= low and high <= 160 # The white test split would have pulled it up
    assert names['conclusion'].rates in (folder/'report.html').read_text().replace('\u00a0', ' ')
    assert results['metrics']['pictures'] == dict(guiding=9, held_out=9)
    for key, (a, b) in windows_of(names['now'], user).items(): assert 0 <= a < b <= 1 and b - a >= .25 - 1e-9
    kept = pd.read_csv(folder/'kept.csv')
    assert len(kept) == 12 and kept.label.value_counts().to_dict() == dict(a=6, b=6)
    assert all((folder/name).is_file() for name in kept.image)
    changes = read_json(folder/'ranges.json')
    assert {c['key'] for c in changes} == {'level', 'tint', 'grain'} and {c['round'] for c in changes} == {0, 1}
    assert find_use_case('walls_of_mine.wall').check(read_json(folder/'adapted.json')['config']) == names['now']
    page = open_file(folder/'report.html')
    assert page.complaints == [] and page.asked == [(folder/'report.html').as_uri()]
    assert page.locator('article.case').count() == 12 and page.get_by_text('deviations').count() > 3
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    assert str(walls) not in (folder/'report.html').read_text()


def test_nothing_to_adapt_is_said(walls):
    names = run_cells(walls, config=dict(level=[70., 80.], tint=[19., 21.], grain=[4.5, 5.5]), rounds=1)
    assert not names['narrow'] and names['conclusion'].level == 'measured' and 'Nothing was changed' in names['conclusion'].rates
    assert names['evaluation']['all']['reduction']['value'] == 0


def test_grey_pictures_of_several_sizes(walls):
    for i in range(18):
        path = walls/'data'/'walls'/f'{i}.png'
        Image.open(path).convert('L').resize((30 + 9*i, 200 - 5*i)).save(path)
    names = run_cells(walls, rounds=1)
    assert names['extractor'].grey and names['extractor'].side == 30 and 'in grey, as every reference is grey' in names['report']
    assert 'too colourful' not in names['report']


def one_picture(root):
    for i in range(1, 24): (root/'data'/'walls'/f'{i}.png').unlink()
    (root/'data'/'walls'/'index.csv').write_text('image,label\n0.png,wall\n')


def no_picture(root): shutil.rmtree(root/'data'/'walls'); (root/'data'/'walls'/'good').mkdir(parents=True)
def index(root, column, value):
    rows = [f'image,label,{column}', *(f'{i}.png,wall,{value}' for i in range(9))]
    (root/'data'/'walls'/'index.csv').write_text('\n'.join(rows))


def one_group(root): index(root, 'group', 'w')
def only_test(root): index(root, 'split', 'test')
def thin(root): write_image(root/'data'/'walls'/'3.png', np.zeros((9, 80, 3), np.uint8))
def broken(root): (root/'data'/'walls'/'4.png').write_bytes(b'\x89PNG no more')
def copies(root):
    for i in range(1, 18): shutil.copy(root/'data'/'walls'/'0.png', root/'data'/'walls'/f'{i}.png')


@pytest.mark.parametrize('spoil, given, why', [
    (one_picture, {}, '1 reference pictures in 1 groups are too few'),
    (no_picture, {}, 'holds no picture'),
    (one_group, {}, '9 reference pictures in 1 groups are too few'),
    (only_test, {}, "only a split 'train' may guide"),
    (thin, {}, 'The smallest picture has a side of 9 pixels'),
    (broken, {}, '4.png is not a picture|4.png cannot be decoded'),
    (copies, dict(on_leak='stop'), 'are also among the training or reference pictures'),
    (copies, {}, 'Only 0 references in 0 groups are left'),
    (None, dict(keep_share=0.), 'share to keep must lie above 0'),
    (None, dict(keep_share=1.5), 'share to keep must lie above 0'),
    (None, dict(min_width=0.), 'minimum width of a range'),
    (None, dict(held_out_share=.01), 'choose a share nearer to a half'),
    (None, dict(labels=['wal']), "No reference has the label 'wal'. Did you mean 'wall'"),
    (None, dict(rounds=0), 'must be int >= 1, got 0'),
    (None, dict(n_eval=1), 'must be int >= 2, got 1'),
    (None, dict(encoder='lpb'), 'lpb'),
    (None, dict(reference_kind='photo'), "reference_kind must be"),
    (None, dict(config=dict(level=[90., 20.])), 'level runs backwards'),
    (None, dict(config=dict(levle=[20., 90.])), "Unknown key 'levle'. Did you mean 'level'"),
])
def test_mistakes_are_one_sentence(walls, spoil, given, why):
    if spoil: spoil(walls)
    with pytest.raises(UserError, match=why) as caught: run_cells(walls, rounds=given.pop('rounds', 1), **given)
    assert '\n' not in str(caught.value)


def test_rendered_references_are_not_real(walls):
    paint('walls_of_mine.wall', {}, 0, range(8), walls/'data'/'frames')
    with pytest.raises(UserError, match='reference_kind must not be real'): run_cells(walls, references='data/frames')


@pytest.mark.parametrize('name', use_cases())
def test_ranges_of_every_use_case_are_found_and_stay_the_users(name):
    use_case, rng = find_use_case(name), generator(0, name)
    user = now = use_case.check({})
    for r in range(3):
        values = drawn_values(use_case, now, user, r, range(8))
        assert 5 < len(values) and set(values) <= set(dict(config_ranges(user))) - {'resolution'}
        for key, frames in values.items():
            low, high = windows_of(now, user)[key]
            assert all(low - 1e-5 <= share <= high + 1e-5 for shares in frames for share in shares), key
        excess = {key: np.array([np.mean(s) if s else 0. for s in shares]) for key, shares in values.items()}
        now, changes = narrow_ranges(now, user, values, excess, rng.permutation(8) < 3, .3)
        assert any(c.before != c.after for c in changes) or r
        assert use_case.check(now) == now # What is left is a config like any other
    for key, (low, high) in windows_of(now, user).items():
        assert 0 <= low < high <= 1 + 1e-9 and high - low >= .3 - 1e-6, key


# ---------------------------------------------------------------- no Blender

GUIDED = '''
from pathlib import Path
import numpy as np
from inspect_lib.core.seed import generator
from inspect_lib.data.frame import write_frame
from inspect_lib.guide.guide import make_extractor, make_guide
from inspect_lib.guide.round import refine, write_rounds
from inspect_lib.render.usecase import make_plan

def image(level, tint, grain, rng): return (rng.normal(level, grain, (32, 40, 1)) + [0, 0, tint]).clip(0, 255).astype(np.uint8)

rng, plan, paths = generator(0, 'references'), make_plan('mine.wall', {}, 0), []
references = [image(rng.uniform(60, 90), 20, 5, rng) for _ in range(16)]
for i in range(40):
    draw = plan.draw(i)
    paths.append(Path(f'{i:06}.hdf5').absolute())
    write_frame(paths[-1], dict(colors=image(draw['level'], draw['tint'], draw['grain'], rng)), draw)
extractor = make_extractor(references, (32, 40))
first = refine(make_guide(extractor(references)), extractor, paths, plan.config, plan.config, .25, .2)
write_rounds(Path.cwd(), [first], 'mine.wall')
'''
NO_BLENDER = """
import importlib, pkgutil, sys

class Blocked:
    "Whatever belongs to Blender cannot be imported"
    def find_spec(self, name, *args):
        if name.partition('.')[0] in ('bpy', 'blenderproc', 'mathutils'): raise ImportError(f'{name} is not here')

sys.meta_path.insert(0, Blocked())
for floor in sys.argv[1:]:
    package = importlib.import_module(f'inspect_lib.{floor}')
    modules = [m.name for m in pkgutil.iter_modules(package.__path__)]
    for name in modules: importlib.import_module(f'inspect_lib.{floor}.{name}')
    print(floor, len(modules))
"""


def test_no_floor_needs_blender_to_be_imported():
    "Whoever guides, trains, judges or reads a report may work where there is no Blender"
    floors = ['acquire', 'render', 'guide', 'net', 'model', 'judge', 'explain', 'report']
    done = subprocess.run([sys.executable, '-c', NO_BLENDER, *floors], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert list(counts) == floors and all(int(n) > 0 for n in counts.values())


def test_guiding_needs_no_blender(workspace):
    "References, frames, ranks and narrowed ranges, from import to the written rounds, with Blender blocked"
    (own := workspace/'plugins'/'mine').mkdir(parents=True); (own/'wall.py').write_text(USE_CASE)
    (workspace/'guide_walls.py').write_text(NO_BLENDER + GUIDED)
    path = os.pathsep.join([str(ROOT), str(workspace)])
    done = subprocess.run([sys.executable, workspace/'guide_walls.py', 'guide'], capture_output=True, text=True,
                          cwd=workspace, env=os.environ | dict(PYTHONPATH=path, INSPECT_LIB_ROOT=str(workspace)))
    assert done.returncode == 0, done.stderr
    assert {'kept.csv', 'frames.csv', 'ranges.json', 'adapted.json'} <= {p.name for p in workspace.iterdir()}
    low, high = read_json(workspace/'adapted.json')['config']['level']
    assert low < 75 < high < 200
