"""The weights that come along, and the pipeline that makes them."""
import json

import numpy as np
import pytest

from conftest import ROOT
from inspect_lib.core.error import UserError
from inspect_lib.core.file import file_hash
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.data.folder import read_folder
from inspect_lib.judge.probe import few_shot, average_seeds
from inspect_lib.net.zoo import load_encoder
from inspect_lib.net.trunk import PINNED, WEIGHTS
from inspect_lib.run.store import list_runs, verify_run


@pytest.mark.parametrize('name', PINNED)
def test_weights_card_and_pin_belong_together(name):
    weights, card = WEIGHTS/f'{name}.safetensors', json.loads((WEIGHTS/f'{name}.json').read_text())
    assert file_hash(weights) == card['sha256'] == PINNED[name] and weights.stat().st_size <= 16_000_000
    text = (WEIGHTS/f'{name}.md').read_text()
    assert PINNED[name][:12] in text and 'not good at' in text.lower()
    assert load_encoder(name).identity['dim'] == card['dim'] and load_encoder(name).identity['weights'] == card['sha256']


def test_changed_weights_are_refused(monkeypatch, tmp_path):
    for name in ('inspect-tiny.safetensors', 'inspect-tiny.json'): (tmp_path/name).write_bytes((WEIGHTS/name).read_bytes())
    with open(tmp_path/'inspect-tiny.safetensors', 'r+b') as file: file.seek(-1, 2); file.write(b'\x01')
    monkeypatch.setattr('inspect_lib.net.trunk.WEIGHTS', tmp_path)
    with pytest.raises(UserError, match='cut off, changed or foreign'): load_encoder('inspect-tiny')


def test_same_pictures_same_vectors_whatever_the_batch():
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 60, 90, 3), dtype=np.uint8))
    encoder = load_encoder('inspect-tiny')
    assert np.array_equal(encoder.encode(pictures), encoder.encode(pictures))
    assert np.abs(encoder.encode(pictures) - encoder.encode(pictures, batch_size=1)).max() < 1e-5


def test_the_pipeline_makes_weights_that_can_be_used(workspace, cli):
    (workspace/'nbs'/'pipelines').mkdir(parents=True)
    (workspace/'nbs'/'pipelines'/'90_pretrain.ipynb').write_bytes((ROOT/'nbs'/'pipelines'/'90_pretrain.ipynb').read_bytes())
    (workspace/'params'/'90_pretrain').mkdir()
    (workspace/'params'/'90_pretrain'/'tiny.yaml').write_text('epochs: 1\npieces: 8\nbatch: 4\n')
    done = cli('run', '90_pretrain', 'tiny')
    assert done.returncode == 0, done.stderr
    record = list_runs(open_workspace(workspace))[0]
    folder = workspace/'reports'/record['path']
    assert {'trunk.safetensors', 'trunk.json', 'report.html'} <= set(verify_run(folder)['outputs'])
    own = load_encoder(f'reports/90_pretrain/tiny/{record["key"]}', open_workspace(workspace))
    assert own.identity['weights'] == file_hash(folder/'trunk.safetensors') and own.encode([np.zeros((40, 40, 3), np.uint8)]).shape == (1, 896)


@pytest.mark.slow
def test_real_steel_from_a_few_known_pictures(real_data):
    table = read_folder(real_data/'neu_det')
    vectors = {name: load_encoder(name).encode_files(table.image_path) for name in ('inspect-tiny', 'inspect-tiny-random')}
    asked = (table.split == 'val').to_numpy()
    best = {name: average_seeds(few_shot(table, v, asked, 20, 0)).value.max() for name, v in vectors.items()}
    assert best['inspect-tiny'] > .9 and best['inspect-tiny'] > best['inspect-tiny-random'] + .05, best
