"""The anomaly pipeline on what users bring: runs on tiny pictures, mistakes in one sentence, banks that do not fit."""
import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

import conftest
from conftest import add_line, piece
from inspect_lib.core.error import UserError
from inspect_lib.core.file import read_json, write_json
from inspect_lib.core.image import declare_white_level, read_image, write_image
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.core.seed import generator
from inspect_lib.judge.anomaly import PixelCounter
from inspect_lib.model.contract import NAME
from inspect_lib.model.patchcore import PatchCore, PatchCoreConfig, make_bank, score_pictures
from inspect_lib.net.encoder import encode_maps, viewed
from inspect_lib.net.descriptor import descriptor
from inspect_lib.run.store import list_runs

PARAMS = '''references: data/line
encoder: hog-colour
metric: euclidean
queries: data/line
query_kind: real
reference_split: train
query_split: test
side: 64
bank_size: 200
calibration_share: 0.5
false_alarm_rate: 0.2
'''


@pytest.fixture
def line(workspace): return add_line(workspace, '34_anomaly', PARAMS, good=12, first=100)


def test_a_line_of_pieces(line, cli, open_file):
    done = cli('run', '34_anomaly', 'line')
    assert done.returncode == 0, done.stderr
    record = list_runs(open_workspace(line))[0]
    found, folder = record['metrics']['anomaly'], line/'reports'/record['path']
    assert found['image_auroc']['value'] == found['recall: spot']['value'] == 1 and found['image_auroc']['low'] < 1
    assert found['pixel_auroc']['value'] > .95 and found['pro']['value'] > .8 and found['pixel_f1']['value'] > .5
    assert record['metrics']['pictures'] == dict(references={'good': 8}, calibration={'good': 6, 'spot': 4},
                                                 queries={'good': 6, 'spot': 4})
    bank = PatchCore.load(folder).bank
    assert bank.threshold == record['metrics']['bank']['threshold'] and len(bank.vectors) == 200
    page = open_file(folder/'report.html')
    assert page.complaints == [] and 8 <= page.locator('article.case').count() <= 10
    assert page.get_by_text('truly defective').count() == page.get_by_text('is spot').count() > 0
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    assert str(line) not in (folder/'report.html').read_text()


def run_cells(line, until='', **given) -> dict:
    return conftest.run_cells('34_anomaly', line, until, **yaml.safe_load(PARAMS) | given)


def test_without_masks_pixels_are_not_measured(line):
    folder, old = line/'data'/'line', line/'data'/'old'
    folder.rename(old)
    for name, new in {'train/good': 'train/free', 'test/good': 'test/free', 'test/spot': 'test/spot'}.items():
        shutil.copytree(old/name, folder/new) # Class folders, not MVTec-AD
    names = run_cells(line, pixel_threshold_from='good', good=['free'], calibrate_on='references', false_alarm_rate=.3)
    found = names['results']
    assert found['image_auroc']['value'] == 1 and found['pro']['value'] is None and found['pixel_auroc']['n'] == 0
    assert names['pictures'] == dict(references={'free': 4}, calibration={'free': 4}, queries={'free': 12, 'spot': 8})
    assert 'not measured' in names['report'] and '(place not known)' in names['report'] and 'Alarm, place not known (' in names['report']
    assert names['located']['found']['value'] is None and 'Whether an alarm is at the place of the defect is not known' in names['report']


def test_an_alarm_at_the_wrong_place_is_a_kind_of_its_own_and_no_find(line):
    at_place = run_cells(line)
    assert at_place['located']['found']['value'] == 1 and at_place['metrics']['macro_f1'] == at_place['metrics']['macro_f1_at_place']
    assert 'Found at the place (' in at_place['report'] and 'It finds 100' in at_place['report'] and 'What slip-through costs' in at_place['report']
    for path in (line/'data'/'line'/'ground_truth'/'spot').glob('*'): # The masks say that the defects are at the edge
        write_image(path, np.pad(np.ones((3, 3), bool), ((37, 0), (53, 0))))
    elsewhere = run_cells(line, pixel_threshold_from='good')
    assert elsewhere['results']['recall']['value'] == 1 and elsewhere['located']['found']['value'] == 0 and elsewhere['located']['wrong_place']['value'] == 1
    assert elsewhere['metrics']['macro_f1_at_place']['value'] < .5 < elsewhere['metrics']['macro_f1']['value']
    assert 'Alarm, but the place is missed (' in elsewhere['report'] and 'Found at the place (' not in elsewhere['report']
    assert elsewhere['conclusion'].level != 'good' and 'It finds 0' in elsewhere['report']
    assert set(elsewhere['judged'].place) == {'', 'wrong_place'}


def same_picture(line): shutil.copy(line/'data'/'line'/'train'/'good'/'0.png', line/'data'/'line'/'test'/'good'/'0.png')
def small_mask(line): write_image(line/'data'/'line'/'ground_truth'/'spot'/'3_mask.png', np.ones((9, 9), bool))
def no_mask(line): shutil.rmtree(line/'data'/'line'/'ground_truth'/'spot')


def no_good(line):
    for split in ('train', 'test'): (line/'data'/'line'/split/'good').rename(line/'data'/'line'/split/'plain')


def half(line):
    path = line/'data'/'line'/'train'/'good'/'5.png'
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize('spoil, given, why', [
    (half, {}, '5.png cannot be decoded'),
    (same_picture, {}, 'are also among the training or reference pictures'),
    (small_mask, {}, '3_mask.png is 9 x 9 pixels, its picture 56 x 40'),
    (no_mask, {}, 'ground_truth: none of its 0 masks belongs to a picture'),
    (None, dict(good=['god']), "No picture has the label 'god', so it cannot be the good one. Did you mean 'good'?"),
    (no_good, dict(good=[]), 'None of the classes plain says that it is the good one (good, IO, OK, ...): name it with good'),
    (None, dict(per_class=9), "Class 'good' has 8 pictures"),
    (None, dict(false_alarm_rate=.01), 'at least 99 are needed'),
    (None, dict(encoder='dinov2-small'), 'no hub is set. Either download'),
    (None, dict(side=4), 'at least 8 pixels, one cell of the map'),
    (None, dict(side=0, zoom=100.), 'The zoom must lie in (0, 8]'),
    (None, dict(side=100_000), 'more than the 4000000 that fit into memory'),
    (None, dict(center_crop=0.), 'The share that is looked at must lie in (0, 1]'),
    (None, dict(neighbourhood=2), 'must be an odd number of cells'),
    (None, dict(bank_size=0), 'must keep at least one cell'),
    (None, dict(k=500), 'k = 500 is more than the 200 cells'),
    (None, dict(calibrate_on='both'), "calibrate_on must be 'queries' or 'references'"),
    (None, dict(calibrate_on='references', false_alarm_rate=.3), "set pixel_threshold_from to 'good'"),
    (None, dict(pixel_threshold_from='f1'), "pixel_threshold_from must be 'masks' or 'good'"),
])
def test_mistakes_are_one_sentence(line, spoil, given, why):
    if spoil: spoil(line)
    with pytest.raises(UserError) as refused: run_cells(line, **given)
    assert why in str(refused.value) and '\n' not in str(refused.value)


def by_index(line, split_masks: bool):
    "The same pictures by an index file, whose masks are whole or in two halves"
    folder, rows = line/'data'/'line', ['image,label,split,mask']
    for path in sorted(folder.glob('t*/*/*.png')):
        split, kind = path.parts[-3:-1]
        masks = ['']
        if kind != 'good':
            mask = read_image(folder/'ground_truth'/kind/f'{path.stem}_mask.png')[..., 0] > 0
            y = int(np.median(np.flatnonzero(mask.any(1)))) + 1
            parts = [mask & (np.arange(len(mask)) < y)[:, None], mask & (np.arange(len(mask)) >= y)[:, None]] if split_masks else [mask]
            masks = [f'{kind}_{path.stem}_{i}.png' for i, part in enumerate(parts)]
            for name, part in zip(masks, parts): write_image(folder/name, part)
        rows += [f'{path.relative_to(folder)},{kind},{split},{mask}' for mask in masks]
    (folder/'index.csv').write_text('\n'.join([*rows, '']))


def test_two_masks_of_one_picture_are_one_mask(line):
    by_index(line, False); whole = run_cells(line)
    by_index(line, True); halves = run_cells(line)
    assert halves['pictures'] == whole['pictures'] == dict(references={'good': 8}, calibration={'good': 6, 'spot': 4}, queries={'good': 6, 'spot': 4})
    assert halves['results'] == whole['results'] and halves['results']['pixel_auroc']['value'] > .95
    assert halves['metrics']['masks'] == dict(queries=dict(read=4, empty=0, missing=0), calibration=dict(read=4, empty=0, missing=0))
    assert 'True masks of the queries: 4 masks read, 0 empty, 0 missing' in halves['report']


def test_an_empty_mask_of_a_defective_picture_is_refused_or_counted(line):
    for path in (line/'data'/'line'/'ground_truth'/'spot').glob('*'): write_image(path, np.zeros((40, 56), bool))
    with pytest.raises(UserError, match='_mask.png: no pixel is marked'): run_cells(line, pixel_threshold_from='good')
    names = run_cells(line, pixel_threshold_from='good', empty_masks='unknown')
    assert names['metrics']['masks']['queries'] == dict(read=0, empty=4, missing=0) and names['results']['pro']['value'] is None


def test_twelve_bits_are_declared_and_the_model_remembers(line):
    "The figures are those of eight bits, and the inspection reads pictures as the training did"
    eight = run_cells(line)
    for path in (line/'data'/'line').glob('t*/*/*.png'):
        deep = np.round(read_image(path)/255*4095).astype(np.uint16)
        cv2.imwrite(str(path), deep[..., ::-1])
    with pytest.raises(UserError, match=r'declare the white level of the camera \(white_level: 4095\)'): run_cells(line)
    try:
        twelve = run_cells(line, white_level=4095)
        model = PatchCore.load(twelve['run'].folder)
        assert model.card['white_level'] == 4095 and 'white_level' not in PatchCore.load(eight['run'].folder).card
        assert abs(twelve['results']['image_auroc']['value'] - eight['results']['image_auroc']['value']) < .02
        assert np.abs(twelve['scored'].pred_score - eight['scored'].pred_score).max() < .1*eight['scored'].pred_score.max()
    finally: declare_white_level(0)


@pytest.fixture
def bank(tmp_path):
    "A saved model, and its bank"
    model = PatchCore.build(dict(encoder='hog-colour', side=64, metric='euclidean'))
    good = [piece(i, False)[0] for i in range(4)]
    model.remember(replace(make_bank(model.encoder, good, 4, generator(0, 'bank'), model.config, 50), threshold=1.))
    model.save(tmp_path/'bank')
    return tmp_path/'bank', model


def test_a_bank_of_another_encoder_is_refused(bank):
    folder, model = bank
    for name, size in (('lbp', (64,)), ('hog-colour', (128,)), ('hog-colour', (0, 2.))):
        with pytest.raises(UserError, match='made by another encoder'): next(score_pictures(model.bank, viewed(descriptor(name), *size), []), None)
    for change in (dict(encoder='lbp'), dict(side=128)):
        with pytest.raises(UserError, match='made by another encoder'): PatchCore.empty(replace(model.config, **change))
    assert PatchCore.load(folder).config == model.config and model.config.threshold == 1


def cut(folder): (folder/NAME).write_bytes((folder/NAME).read_bytes()[:-40])
def no_card(folder): (folder/'model.json').unlink()
def no_vectors(folder): (folder/NAME).unlink()
def foreign(folder): write_json(folder/'model.json', dict(some='thing'))
def changed(folder, **entries): write_json(folder/'model.json', read_json(folder/'model.json') | dict(config=read_json(folder/'model.json')['config'] | entries))
def threshold(folder): changed(folder, threshold=9.)
def broken(folder): (folder/'model.json').write_text('{')
def lying(folder): changed(folder, k=-1)


def pickled(folder):
    import pickle
    (folder/NAME).write_bytes(pickle.dumps(np.zeros((50, 12))))


def huge(folder):
    "A header that promises 4 TB"
    head = json.dumps(dict(vectors=dict(dtype='F32', shape=[10**11, 12], data_offsets=[0, 48*10**11]))).encode()
    (folder/NAME).write_bytes(len(head).to_bytes(8, 'little') + head)


@pytest.mark.parametrize('spoil', [cut, no_card, no_vectors, foreign, threshold, broken, lying, pickled, huge])
def test_a_spoilt_bank_is_refused(bank, spoil):
    folder, _ = bank
    spoil(folder)
    with pytest.raises(UserError): PatchCore.load(folder)


def test_saving_that_fails_leaves_no_bank(bank, monkeypatch):
    folder, model = bank
    shutil.rmtree(folder)
    import inspect_lib.net.weights as module
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(module, 'write_json', full)
    with pytest.raises(OSError): model.save(folder)
    monkeypatch.undo()
    with pytest.raises(UserError, match='does not exist'): PatchCore.load(folder)


def test_pictures_of_any_shape():
    "Smaller than a cell, one pixel wide, and mixed: every picture gets a map, and order does not matter"
    images = [piece(i, False, shape)[0] for i, shape in enumerate([(3, 3), (1, 50), (200, 9), (64, 64), (3, 3)])]
    for encoder in (viewed(descriptor(), 0, .5), viewed(descriptor('lbp'), 0, 2.), viewed(descriptor('lbp'), 48)):
        together = list(encode_maps(encoder, images, batch_size=3))
        alone = [next(encode_maps(encoder, [image])) for image in images]
        assert all((a == b).all() for a, b in zip(together, alone))
        assert all(m.ndim == 3 and m.shape[2] == encoder.grid['channels'] for m in together)


def test_black_pictures_have_finite_scores():
    black = np.zeros((32, 32, 3), np.uint8)
    for name in ('hog-colour', 'lbp'):
        for metric in ('cosine', 'euclidean'):
            encoder = viewed(descriptor(name), 32)
            bank = make_bank(encoder, [black]*3, 3, generator(0, 'black'), PatchCoreConfig(metric=metric), 10)
            scores = [score for score, _ in score_pictures(bank, encoder, [black, piece(0, True, (32, 32))[0]])]
            assert np.isfinite(scores).all() and scores[0] < 1e-3 < scores[1]


def test_counting_needs_little_memory():
    "Maps of a million pixels each are kept as a few thousand numbers"
    import tracemalloc
    rng = generator(0, 'large'); pixels = PixelCounter()
    mask = np.zeros((1000, 1000), bool); mask[100:200, 100:200] = True
    field = rng.random((1000, 1000)).astype(np.float32)
    tracemalloc.start()
    for i in range(4): pixels.add(field + i, mask, 'one')
    counts, (_, peak) = pixels.counts(), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6 and counts.good.nnz < 1 << 16 and counts.good.sum() + counts.bad.sum() == 4e6


@pytest.mark.slow
@pytest.mark.parametrize('name', ['magnetic_tile_hog', 'casting'])
def test_on_real_pictures(run_real, name):
    found = run_real('34_anomaly', name)
    assert set(found['pictures']['references']) <= {'Free', 'IO'}
    assert found['anomaly']['image_auroc']['high'] > .5 and found['anomaly']['false_alarm_rate']['low'] <= .15
