"""Defect networks: what a batch does not tell teaches nothing, sizes of any kind, twins, painted defects, and the pipeline's bad inputs."""
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import ROOT
from inspect_lib.core.error import UserError
from inspect_lib.core.file import read_json
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.core.seed import generator
from inspect_lib.data.box import boxes
from inspect_lib.data.crop import LabelledPicture, cut, draw_crop
from inspect_lib.data.label import DEFECT, GOOD
from inspect_lib.judge.outcome import read_judged
from inspect_lib.model.defect_aux_net import PUBLISHED, TASKS, DefectAuxNet, DefectAuxNetConfig, make_batch, millions, predictions
from inspect_lib.model.defect_training import CropPlan, crop_batches, training_rows, turns, with_painted
from inspect_lib.model.registry import load_model
from inspect_lib.net.attention import ATTENTIONS
from inspect_lib.run.executor import run_record
from inspect_lib.run.params import check_params, declared
from inspect_lib.run.shell import run_in_process
from inspect_lib.run.work import new_record, pipeline_notebook
from inspect_lib.synth.fitted_defect import PAINTED, distract, paint_fitted, surface_statistics

SMALL = dict(classes=('bright',), backbone='inspect-tiny', box_strides=(8, 16, 32), min_anchor=12)
PUBLISHED_MILLIONS = dict(zip(ATTENTIONS, (33.2, 35.7, 33.5, 36.2)))


def noise(i: int, size=(96, 120)) -> np.ndarray:
    return np.clip(generator(i, 'tile').normal(120, 10, (*size, 1)), 0, 255).astype(np.uint8).repeat(3, 2)


@pytest.mark.parametrize('attention', ATTENTIONS)
def test_as_many_weights_as_were_published(attention):
    "Ours are fewer by what the finest level and CBAM's spatial attention save, at most a million"
    assert 0 < PUBLISHED_MILLIONS[attention] - millions(DefectAuxNet(replace(PUBLISHED, attention=attention))) < 1


def test_one_network_has_three_sevenths_of_the_weights_of_its_plain_twins():
    twins = sum(millions(DefectAuxNet(replace(PUBLISHED, tasks=(task,), attention='none'))) for task in TASKS)
    assert 1 - millions(DefectAuxNet(PUBLISHED))/twins >= .57


@pytest.mark.parametrize('size', [(600, 40), (37, 61), (33, 32)])
def test_any_size_gives_masks_and_boxes_of_that_size(size):
    model, image = DefectAuxNet.build(SMALL).eval(), noise(0, size)
    model.card['score_threshold'] = 0.
    said = model.predict([image, image[:, ::-1]])
    assert [m.shape for m in said.pred_mask] == [size]*2 and said.anomaly_map[0].dtype == np.float32
    assert all((b.xyxy[:, 2] <= size[1]).all() and (b.xyxy[:, 3] <= size[0]).all() for b in said.pred_boxes)


@pytest.mark.parametrize('told', ['kinds', 'mask', 'boxes'])
def test_a_head_learns_from_its_own_truth_alone(told):
    model = DefectAuxNet.build(SMALL)
    mask = np.zeros((96, 120), np.uint8); mask[20:40, 30:60] = 1
    truth = dict(kinds=('bright',), mask=mask, boxes=boxes([[30, 20, 60, 40]], ['bright']))
    losses = model.training_step(make_batch([LabelledPicture(noise(0), **{told: truth[told]})], ('bright',)))
    losses['loss'].backward()
    head = dict(kinds='classify', mask='segment', boxes='detect')[told]
    assert losses[head] > 0 and all(losses[task] == 0 for task in TASKS if task != head)
    moved = {task for task in TASKS if any(p.grad.abs().sum() > 0 for p in model.heads[task].parameters())}
    assert moved == {head}


def test_gamma_and_weights_of_the_tasks_take_effect():
    batch = DefectAuxNet.example().example_batch()
    def losses(**change): return DefectAuxNet.build(SMALL | change).eval().training_step(batch)
    plain, soft, heavy = losses(), losses(gamma=0.), losses(task_weights=(2., 0., 1.))
    assert soft['detect'] > plain['detect'] and soft['segment'] == plain['segment']
    assert torch.isclose(heavy['loss'], 2*plain['classify'] + plain['detect'])


@pytest.mark.parametrize('wrong, sentence', [
    (dict(tasks=['clasify']), "no task 'clasify'. Did you mean 'classify'"), (dict(tasks=[]), 'one or more of classify, segment, detect'),
    (dict(attention='sse'), "no attention 'sse'"), (dict(segment_loss='dise'), "no mask loss 'dise'"), (dict(score='mask', tasks=['classify']), 'needs heads'),
    (dict(box_strides=[32, 8]), 'must rise within'), (dict(task_weights=[0, 0, 0]), 'not all 0'), (dict(side=8), 'The side must lie in'),
    (dict(first_weights='zero'), "no first weights 'zero'"), (dict(dropout=1.), r'dropout must lie in \[0, 1\)'), (dict(classes=[]), 'one class or more'),
    (dict(backbone='resnet51'), "no pyramid 'resnet51'"), (dict(unknown=1), "an entry 'unknown'")])
def test_a_configuration_that_makes_no_network_is_one_sentence(wrong, sentence):
    with pytest.raises(UserError, match=sentence) as error: DefectAuxNet.build(wrong)
    assert '\n' not in str(error.value).strip()


def test_a_small_defect_can_win_the_score():
    "A hole of three cells on a large picture, and a flat network everywhere else"
    config = DefectAuxNetConfig(tasks=('segment',))
    score = np.array([2.])
    mask = np.full((1, 1, 80, 150), .01, np.float32); mask[..., 40:43, 70:73] = .9
    said = predictions(dict(score=score, mask=mask), [(320, 600)], config)
    assert said.pred_label.tolist() == [DEFECT] and 60 < said.pred_mask[0].sum() < 200


def test_masks_and_boxes_follow_every_crop():
    mask = np.zeros((96, 120), np.uint8); mask[20:40, 30:60] = 1
    image = noise(0); image[mask > 0] = 250
    labelled = LabelledPicture(image, ('bright',), mask)
    for i in range(20):
        crop = draw_crop(labelled, 64, ('bright',), dict(rotation=[-180, 180], zoom=[.8, 1.2], horizontal_flip=.5), generator(i, 'crop'))
        inside = crop.image[..., 0] > 200
        assert (inside & (crop.mask > 0)).sum() > .85*(inside | (crop.mask > 0)).sum() > 0
        x0, y0, x1, y1 = crop.boxes.xyxy[0].astype(int)
        assert crop.mask[y0:y1, x0:x1].sum() == crop.mask.sum()
    assert cut(labelled, (110, 90), 40, ('bright',)).kinds == ()


def test_kinds_are_drawn_equally_often_and_half_of_the_crops_are_good():
    kinds = [GOOD]*100 + ['a']*20 + ['b']
    rows = turns(kinds, CropPlan(64, 8), 6000, generator(0, 'turns'))
    share = [np.mean([kinds[i] == kind for i in rows]) for kind in (GOOD, 'a', 'b')]
    assert np.allclose(share, [.5, .25, .25], atol=.03)
    assert set(turns(['a', 'b'], CropPlan(64, 8), 50, generator(0))) == {0, 1} and set(turns([GOOD], CropPlan(64, 8), 5, generator(0))) == {0}


@pytest.mark.parametrize('kind', PAINTED)
def test_painted_defects_change_what_their_mask_says_and_follow_the_seed(kind):
    surface = noise(1, (150, 180))
    statistics = surface_statistics([surface])
    pictures = [paint_fitted(surface, kind, statistics, generator(i, 'paint')) for i in range(8)]
    again = paint_fitted(surface, kind, statistics, generator(0, 'paint'))
    assert (again[0] == pictures[0][0]).all() and (again[1] == pictures[0][1]).all()
    visible = [np.abs(p[m].astype(float) - surface[m]).mean() for p, m in pictures if m.sum() > 20]
    beyond = [np.abs(p[~m].astype(float) - surface[~m]).mean() for p, m in pictures if m.sum() > 20]
    assert np.median(visible) > 4 and np.median(visible) > 4*np.median(beyond)


def test_painted_training_never_sees_a_real_defect():
    table = pd.DataFrame(dict(gt_label=[GOOD, DEFECT]))
    assert training_rows(table, 'painted').gt_label.tolist() == [GOOD]
    with pytest.raises(UserError, match='defect pictures are needed, and there are none; paint them'): training_rows(table[:1], 'real')
    with pytest.raises(UserError, match='good pictures are needed'): training_rows(table[1:], 'painted')
    real = LabelledPicture(np.full((96, 120, 3), 7, np.uint8), ('defect',), np.ones((96, 120), np.uint8))
    pictures, kinds = with_painted([LabelledPicture(noise(0), (), np.zeros((96, 120), np.uint8)), real], [GOOD, 'crack'], 'painted', 3, ('defect',), 0)
    assert 'crack' not in kinds and all(not (p.image == real.image).all() for p in pictures) and sum(p.mask.any() for p in pictures) == 3
    batch = next(crop_batches(pictures, kinds, ('defect',), CropPlan(64, 6), 1, 0, 1))
    assert batch['mask_known'].all() and batch['classes_known'].all()


def test_what_is_no_defect_is_marked_nowhere_and_hardly_moves_the_mean():
    surface = noise(2, (150, 180))
    changed = distract(surface, surface_statistics([surface]), generator(0, 'harmless'), 1.)
    assert (changed != surface).any() and abs(changed.mean() - surface.mean()) < 30


@pytest.fixture
def run(workspace, monkeypatch):
    "Run the pipeline on the drawn pictures, in this process"
    shutil.copytree(ROOT/'nbs'/'pipelines', workspace/'nbs'/'pipelines')
    shutil.copytree(ROOT/'data'/'smoke'/'anomaly', workspace/'data'/'smoke'/'anomaly')
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace)); monkeypatch.setenv('TQDM_DISABLE', '1')
    ws = open_workspace(workspace)
    def execute(**params):
        record = new_record('36_defect', 'a', check_params(params, declared(pipeline_notebook('36_defect', ws))), ws)
        return run_record(record, ws, run_in_process)[0]
    return execute


@pytest.mark.parametrize('wrong, sentence', [
    (dict(defects='pained'), "Did you mean 'painted'"), (dict(evaluations=9, steps=4), 'evaluations must lie in'),
    (dict(augment={'mixing': [0, .2]}), 'cannot follow mixing'), (dict(one_class='', defects='painted'), 'one class')])
def test_a_wrong_parameter_of_the_pipeline_is_one_sentence(run, wrong, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)): run(**wrong)


def test_trained_on_painted_defects_the_pipeline_leaves_a_model_and_says_what_it_was_trained_on(run):
    folder = run(defects='painted', painted_pictures=6, steps=4, evaluations=1)
    metrics = read_json(folder/'metrics.json')['metrics']
    assert set(metrics['pictures']['train']) == set(metrics['pictures']['validation']) == {'good'} and metrics['painted'] == 6
    assert {'image_auroc', 'pixel_ap', 'by_size', 'contradictions', 'boxes', 'by_score'} <= set(metrics) and metrics['image_auroc']['n'] > 0
    model = load_model(folder)
    assert asdict(model.config) == asdict(DefectAuxNetConfig(**metrics['config'])) and model.config.score in metrics['by_score']
    page = (folder/'report.html').read_text()
    assert 'Trained on painted defects' in page and 'Contradictions' in page
    judged = read_judged(folder)
    assert len(judged) == metrics['image_auroc']['n'] and set(judged.pred_label) <= {GOOD, DEFECT}
