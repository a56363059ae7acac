"""The Siamese pipeline on what users bring: tiny pictures, regions, mistakes, weights that do not fit."""
import json
import os
import pickle
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import conftest
from conftest import ROOT
from inspect_lib.core.error import UserError
from inspect_lib.core.file import read_json
from inspect_lib.core.image import write_image
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.core.seed import generator
from inspect_lib.data.augment import STEPS, augment
from inspect_lib.data.folder import read_folder
from inspect_lib.net.zoo import load_backbone
from inspect_lib.net.batch import batches, read_pictures
from inspect_lib.net.checkpoint import TrainConfig
from inspect_lib.model.inspector import Inspector
from inspect_lib.model.siamese import new_siamese
from inspect_lib.model.siamese_training import pair_losses
from inspect_lib.net.train import fit
from inspect_lib.run.store import list_runs

PARAMS = '''references: data/line/train
queries: data/line/val
query_kind: real
good: [IO]
side: 32
epochs: 2
batch: 8
steps: 2
embedding_dim: 8
augment: {brightness: [0.9, 1.1]}
false_accept_rate: 0.2
'''


def piece(i: int, defective: bool, shape=(44, 60)) -> np.ndarray:
    "A smooth noisy surface, by choice with bright spots"
    rng = generator(0, 'siamese', i); y, x = np.mgrid[:shape[0], :shape[1]]
    grey = rng.normal(100, 6, shape) + np.linspace(0, 40*rng.random(), shape[1])
    for _ in range(5*defective): grey[np.hypot(y - rng.integers(shape[0]), x - rng.integers(shape[1])) < 5] = 230
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture
def line(workspace):
    "Good and defective pieces, and the pipeline"
    ignore = shutil.ignore_patterns('.ipynb_checkpoints')
    shutil.copytree(ROOT/'nbs'/'pipelines', workspace/'nbs'/'pipelines', ignore=ignore)
    for part, start in (('train', 0), ('val', 100)):
        for i in range(12):
            for label in ('IO', 'NIO'):
                picture = piece(start + i + 50*(label == 'NIO'), label == 'NIO')
                write_image(workspace/'data'/'line'/part/label/f'{i}.png', picture)
    (workspace/'params'/'32_siamese').mkdir()
    (workspace/'params'/'32_siamese'/'line.yaml').write_text(PARAMS)
    return workspace


def test_a_line_of_pieces(line, cli, open_file):
    done = cli('run', '32_siamese', 'line', OMP_NUM_THREADS='1')
    assert done.returncode == 0, done.stderr
    record = list_runs(open_workspace(line))[0]
    found, folder = record['metrics'], line/'reports'/record['path']
    assert found['inspector']['roc_auc']['value'] > .9 and found['untrained']['roc_auc']['value'] > .8
    assert found['pictures']['testing'] == {'IO': 12, 'NIO': 12}
    inspector = Inspector.load(folder)
    assert inspector.card['key'] == record['key'] and inspector.card['threshold'] == found['threshold']
    assert inspector.card['good'] == ['IO'] and set(inspector.card['references']['labels']) == {'IO', 'NIO'}
    status = read_json(folder/'training'/'status.json')
    assert status['state'] == 'done' and status['epoch'] == found['epochs'] == 2
    page = open_file(folder/'report.html')
    text = page.locator('main').text_content()
    for said in ('Was the training worth it?', 'How it learned', 'Labels to check', 'brightness 0.9 to 1.1'):
        assert said in text, said
    assert page.complaints == [] and page.locator('article.case').count() >= 8
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    assert str(line) not in (folder/'report.html').read_text()


def run_cells(line, until='', **given) -> dict:
    return conftest.run_cells('32_siamese', line, until, **yaml.safe_load(PARAMS) | given)


def one_class(line): shutil.rmtree(line/'data'/'line'/'train'/'NIO')
def one_each(line):
    for label in ('IO', 'NIO'):
        for i in range(1, 12): (line/'data'/'line'/'train'/label/f'{i}.png').unlink()
def all_equal(line):
    for path in (line/'data'/'line').rglob('*.png'): write_image(path, piece(0, False))
def no_roi(line): (line/'data'/'roi.csv').write_text('image,x0,y0,x1,y1\nIO/1.png,5,5,5,20\n')
def wide_roi(line): (line/'data'/'roi.csv').write_text('image,x0,y0,x1,y1\n*,0,0,60,45\n')
def pickled(line): (line/'data'/'w.safetensors').write_bytes(pickle.dumps(dict(a=1)))
def other(line): save_file(load_backbone('mobilenet_v3_small', '').state_dict(), line/'data'/'w.safetensors')


def cut(line):
    other(line)
    (line/'data'/'w.safetensors').write_bytes((line/'data'/'w.safetensors').read_bytes()[:-1000])


RESNET = dict(backbone='resnet18', weights_file='data/w.safetensors')


@pytest.mark.parametrize('spoil, given, why', [
    (one_class, {}, 'For training there are 12 IO and 0 NIO pictures'),
    (one_each, {}, 'too few groups to be on both sides'),
    (all_equal, {}, 'also among the training or reference pictures'),
    (all_equal, dict(on_leak='drop'), 'For calibration there are 0 IO and 0 NIO pictures'),
    (no_roi, dict(roi='data/roi.csv'), 'line 2: x 5..5, y 5..20 has no area'),
    (wide_roi, dict(roi='data/roi.csv'), 'line 2: x 0..60, y 0..45 reaches beyond the picture of 60 x 44'),
    (pickled, RESNET, 'a renamed pickle'),
    (cut, RESNET, 'cut off'),
    (other, RESNET, 'another architecture'),
    (None, dict(good=['OK']), "No picture has the label 'OK'"),
    (None, dict(augment=dict(rotate=[0, 1])), "Did you mean 'rotation'"),
    (None, dict(loss='triple'), "Did you mean 'triplet'"),
    (None, dict(distance='cosine'), "no distance 'cosine'"),
    (None, dict(backbone='resnet5'), "Did you mean 'resnet50'"),
    (None, dict(batch=7), 'even number'),
])
def test_mistakes_are_one_sentence(line, spoil, given, why):
    if spoil: spoil(line)
    with pytest.raises(UserError, match=why) as found: run_cells(line, until='make_inspector(', **given)
    assert '\n' not in str(found.value)
    assert not list(line.glob('reports/32_siamese/*/*/model.safetensors'))


def test_regions_and_shapes(line):
    "A region for all pictures, grey and large ones among them; the card keeps it"
    (line/'data'/'roi.json').write_text('[4, 4, 40, 40]')
    write_image(line/'data'/'line'/'val'/'IO'/'0.png', piece(300, False, (90, 70))[..., 0])
    names = run_cells(line, until='model.save(', roi='data/roi.json', padding=.1)
    card = read_json(names['run'].folder/'model.json')
    assert card['roi'] == [4, 4, 40, 40] and card['padding'] == .1
    assert names['images'][2].images.shape == (24, 32, 32, 3)


@pytest.mark.parametrize('loss, distance', [('triplet', 'euclidean'), ('sigmoid', 'weighted-l1')])
def test_every_loss_teaches(line, loss, distance):
    known = read_pictures(read_folder(line/'data'/'line'/'train'), 32)
    twins = new_siamese(dim=8, distance=distance)
    optimizer = torch.optim.AdamW(twins.parameters(), 1e-3)
    rules = TrainConfig(4, threads=1, precision='fp32')
    history = fit(twins, batches(known, {}, 12, 3), partial(pair_losses, loss=loss), optimizer, rules, line/'training')
    losses = [row['losses'] for row in history['epochs']]
    assert losses[-1]['loss'] < losses[0]['loss'] and losses[-1]['alike'] < losses[-1]['different']


@pytest.mark.parametrize('name', ['resnet50'])
def test_a_large_backbone_learns(name):
    "Forward, backward, one step, at a small side"
    twins = new_siamese(name, '', 8).train()
    optimizer, before = torch.optim.SGD(twins.parameters(), .1), twins.backbone.body[1].conv1.weight.detach().clone()
    images = torch.from_numpy(np.stack([piece(i, i % 2 == 1, (64, 64)) for i in range(4)]))
    losses = pair_losses(twins, dict(image=images, is_io=torch.tensor([True, False, True, False])))
    losses['loss'].backward(); optimizer.step()
    assert losses['loss'].isfinite() and not torch.equal(before, twins.backbone.body[1].conv1.weight)
    assert twins.eval()(torch.rand(2, 3, 96, 64)).shape == (2, 8)


def test_a_training_goes_on_as_if_undisturbed(line):
    "Stopped after the first epoch and called again: the same numbers as in one go"
    known = read_pictures(read_folder(line/'data'/'line'/'train'), 32)
    def train(folder, stop_in=0):
        twins = new_siamese(dim=8)
        def step(model, batch):
            if stop_in and len(seen) == stop_in: (folder/'STOP').touch()
            seen.append(1)
            return pair_losses(model, batch)
        seen = []
        return fit(twins, batches(known, dict(noise=[0, 5]), 8, 2), step, torch.optim.AdamW(twins.parameters(), 1e-3),
                   TrainConfig(2, threads=1, precision='fp32'), folder)
    whole = train(line/'whole')
    with pytest.raises(UserError, match='Stopped by'): train(line/'parts', stop_in=2)
    assert train(line/'parts') == whole


def test_augmentations_keep_shape_and_are_repeatable():
    image = piece(1, True)
    for name, step in STEPS.items():
        plan = {name: [max(step.limits[0], -10), min(step.limits[1], 10)]}
        one, two = (augment(image, plan, generator(5, name), image[..., 0] > 200, image[::-1].copy()) for _ in range(2))
        assert one[0].shape == image.shape and one[0].dtype == np.uint8 and one[1].dtype == bool, name
        assert (one[0] == two[0]).all() and (one[1] == two[1]).all(), name


def run_real(name: str, real_data, tmp_path) -> dict:
    env = os.environ | dict(INSPECT_LIB_ROOT=str(ROOT), INSPECT_LIB_DATA=f'data:{real_data}',
                            INSPECT_LIB_REPORTS=str(tmp_path))
    done = subprocess.run(['inspect-lib', 'run', '32_siamese', name],
                          env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(next(tmp_path.glob(f'32_siamese/{name}/*/metrics.json')).read_text())['metrics']


@pytest.mark.slow
@pytest.mark.parametrize('name', ['casting', 'magnetic_tile'])
def test_on_real_pictures(real_data, tmp_path, name):
    found = run_real(name, real_data, tmp_path)
    assert found['inspector']['roc_auc']['high'] > .5 and found['inspector']['roc_auc']['n'] > 80
