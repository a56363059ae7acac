"""A user's own folder, in every layout: `start` writes a params file that fits the pipeline, or says what is missing."""
import csv
import shutil

import numpy as np
import pytest

from inspect_lib.core.error import UserError
from inspect_lib.core.image import write_image
from inspect_lib.core.paths import workspace as read_workspace
from inspect_lib.core.plain_yaml import plain_yaml
from inspect_lib.core.seed import generator
from inspect_lib.data.folder import read_folder
from inspect_lib.data.split import divide, find_leaks
from inspect_lib.data.sample import write_sample
from inspect_lib.formats.export import export_frames
from inspect_lib.formats.recognition import recognise
from inspect_lib.run.params import check_params, declared
from inspect_lib.run.start import start
from conftest import ROOT

BRIGHT = ('NIO', 'NOK', 'crack', 'scratch', 'M8', 'defect')


def part(label, i, shape=(48, 64)):
    "One drawn part; some labels have a bright spot"
    rng = generator(i, 'part', label)
    grey = rng.normal(110, 25, shape)
    if label in BRIGHT: grey[10:20, 12:24] += 90
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def fill(folder, n=10, first=0, suffix='.png'):
    "Pictures of the class that the folder is called after"
    for i in range(first, first + n): write_image(folder/f'{i:03}{suffix}', part(folder.name, i))
    return folder


def masks(folder, n, first=0):
    mask = np.zeros((48, 64), np.uint8); mask[10:20, 12:24] = 255
    for i in range(first, first + n): write_image(folder/f'{i:03}_mask.png', np.repeat(mask[..., None], 3, 2))


def classes(*names, n=10):
    def draw(folder):
        for name in names: fill(folder/name, n)
    return draw


def mvtec(folder):
    fill(folder/'train'/'good', 20); fill(folder/'test'/'good', 6, 20); fill(folder/'test'/'crack', 6)
    masks(folder/'ground_truth'/'crack', 6)


def split(*names):
    def draw(folder):
        for name in names: fill(folder/'train'/name, 12); fill(folder/'val'/name, 12, 12)
    return draw


def only_defects_to_test_on(folder):
    "The test split alone cannot judge: everything is divided anew"
    fill(folder/'train'/'good', 12); fill(folder/'test'/'crack', 6)


def beside(folder):
    fill(folder/'Images'/'good', 12); fill(folder/'Images'/'crack', 8); masks(folder/'Masks'/'crack', 8)


def index(folder):
    fill(folder/'shots', 36)
    rows = [dict(image=f'shots/{i:03}.png', label='ok' if i < 20 else 'scratch', group=f'g{i//2}') for i in range(36)]
    with (folder/'index.csv').open('w') as file:
        writer = csv.DictWriter(file, ('image', 'label', 'group')); writer.writeheader(); writer.writerows(rows)


def annotated(form):
    def draw(folder):
        export_frames(write_sample(folder.parent/'drawn', 8), folder.parent/'sets', [form])
        shutil.copytree(folder.parent/'sets'/form, folder)
    return draw


def roboflow(folder):
    for name, seed in (('train', 0), ('valid', 1)):
        export_frames(write_sample(folder.parent/name, 6, seed), folder.parent/f'{name}_sets', ['coco'])
        shutil.copytree(folder.parent/f'{name}_sets'/'coco', folder/name)


LAYOUTS = dict(
    io=(classes('IO', 'NIO'), '32_siamese', dict(good=['IO'], queries='')), german=(classes('i.O.', 'n.i.O.'), '32_siamese', dict(good=['i.O.'])),
    ok=(classes('OK', 'NOK'), '32_siamese', dict(good=['OK'])), io_split=(split('IO', 'NIO'), '32_siamese', dict(reference_split='train', query_split='val')),
    words=(classes('yes', 'no', 'null'), '30_similarity', dict(queries='')), nuts=(classes('M8', 'M10', 'none', n=6), '30_similarity', dict(k=4)),
    nuts_split=(split('M8', 'M10'), '30_similarity', dict(reference_split='train', query_split='val', queries='data/nuts_split')),
    only_good=(classes('good', n=12), '34_anomaly', dict(pixel_threshold_from='good')), kinds=(classes('good', 'crack', 'scratch'), '34_anomaly', dict(good=['good'])),
    defect=(classes('good', 'defect'), '34_anomaly', dict(good=['good'])), mvtec=(mvtec, '34_anomaly', dict(reference_split='train', query_split='test')),
    beside=(beside, '34_anomaly', dict(pixel_threshold_from='masks', empty_masks='unknown')), index=(index, '34_anomaly', dict(good=['ok'])),
    anew=(only_defects_to_test_on, '34_anomaly', dict(queries='', reference_split='')),
    coco=(annotated('coco'), '40_mix', dict(test='')), yolo=(annotated('yolo'), '40_mix', dict(test='')), voc=(annotated('voc'), '40_mix', dict(test='')),
    roboflow=(roboflow, '40_mix', dict(real='data/roboflow/train', test='data/roboflow/valid')))


@pytest.fixture
def ws(workspace):
    (workspace/'nbs').symlink_to(ROOT/'nbs')
    return read_workspace(workspace)


@pytest.mark.parametrize('name', LAYOUTS)
def test_every_layout_gets_a_params_file_that_fits(ws, name):
    draw, pipeline, expected = LAYOUTS[name]
    folder = ws.root/'data'/name
    draw(folder)
    started = start(folder, ws, recognise(folder))
    text = started.path.read_text()
    params = check_params(plain_yaml(text), declared(ROOT/'nbs'/'pipelines'/f'{pipeline}.ipynb'))
    assert started.proposal.pipeline == pipeline and started.path == ws.params/pipeline/f'{name}.yaml'
    assert {key: params[key] for key in expected} == expected
    lines = text.splitlines()
    assert all(lines[i - 1].startswith('# ') for i, line in enumerate(lines) if line and not line.startswith('#'))
    assert str(ws.root) not in text


def loose(folder):
    for i in range(3): write_image(folder/f'{i}.png', part('any', i))


def all_alike(folder):
    for name in ('IO', 'NIO'):
        for i in range(10): write_image(folder/name/f'{i}.png', np.clip(part(name, 0)*(.8 + .02*i), 0, 255).astype(np.uint8))


def broken(folder):
    classes('IO', 'NIO')(folder); (folder/'IO'/'000.png').write_bytes(b'no picture')


def several_broken(folder):
    classes('IO', 'NIO')(folder)
    for name in ('IO/000.png', 'NIO/004.png', 'NIO/007.png'): (folder/name).write_bytes(b'no picture')


def no_names(folder):
    annotated('yolo')(folder); (folder/'data.yaml').unlink()


def no_objects(folder):
    annotated('yolo')(folder)
    for p in folder.rglob('labels/**/*.txt'): p.write_text('')


WRONG = dict(
    nothing=(lambda folder: folder.mkdir(), 'holds no picture'), loose=(loose, 'nothing says what they show'), good=(loose, 'give the folder above it'),
    few=(classes('IO', 'NIO', n=3), r"'good' \(IO\) has 3 pictures"), few_classes=(classes('M8', 'M10', n=4), 'Add 1 more'), alike=(all_alike, '10 pictures, of which near duplicates'),
    defects=(classes('NIO'), 'none of good parts'), one=(classes('door'), "--good 'door'"), broken=(broken, '000.png'), several_broken=(several_broken, '000.png.*2 more of 20 pictures cannot be read either: 004.png, 007.png. Mend or remove them'), no_names=(no_names, 'no data.yaml'),
    no_objects=(no_objects, 'no annotated object'), single_defect=(lambda f: (fill(f/'good', 12), fill(f/'crack', 1)), r"'defect' \(crack\) has 1 picture of different parts.*Add 1 more"))


@pytest.mark.parametrize('name', WRONG)
def test_what_cannot_be_learned_from_is_one_sentence_that_says_what_is_missing(ws, name):
    draw, sentence = WRONG[name]
    folder = ws.root/'data'/name
    draw(folder)
    with pytest.raises(UserError, match=sentence) as met: start(folder, ws, recognise(folder))
    assert '\n' not in str(met.value) and not list(ws.params.rglob('*.yaml'))


def test_hardly_a_defective_part_means_that_good_ones_are_remembered(ws):
    fill(ws.root/'data'/'door'/'IO', 14); fill(ws.root/'data'/'door'/'NIO', 3)
    started = start(ws.root/'data'/'door', ws, recognise(ws.root/'data'/'door'))
    assert started.proposal.pipeline == '34_anomaly' and 'Hardly a defective part' in started.path.read_text()


@pytest.mark.parametrize('seed', range(4))
def test_no_copy_lies_on_both_sides(tmp_path, seed):
    "Exposures, turns and renamed copies of a part stay together, also over classes and groups"
    rng = generator(seed, 'copies')
    for i in range(12):
        picture = part('IO', i + 100*seed, (64, 64))
        for j in range(int(rng.integers(1, 4))):
            copy = (np.rot90(picture, int(rng.integers(4)))*rng.uniform(.7, 1)).astype(np.uint8)
            write_image(tmp_path/('IO' if rng.random() < .5 else 'NIO')/f'{i}-{j}.png', copy)
    train, test = divide(read_folder(tmp_path), .4, generator(seed, 'judged'))
    assert not {p.rpartition('/')[2].split('-')[0] for p in train.image_path} & {p.rpartition('/')[2].split('-')[0] for p in test.image_path}
    assert not len(find_leaks(train, test, near=.97)) and len(train) and len(test)


def test_a_folder_outside_is_added_on_request_only(cli, workspace, tmp_path_factory):
    (workspace/'nbs').symlink_to(ROOT/'nbs')
    folder = tmp_path_factory.mktemp('own')/'door panels'
    classes('IO', 'NIO')(folder)
    before = (workspace/'settings.ini').read_text()
    refused = cli('start', str(folder))
    assert refused.returncode == 1 and 'add \':' in refused.stderr and '--add-data' in refused.stderr
    assert (workspace/'settings.ini').read_text() == before and not list((workspace/'params').rglob('*.yaml'))
    done = cli('start', str(folder), '--add-data')
    assert done.returncode == 0 and 'inspect-lib run 32_siamese door_panels' in done.stdout, done.stderr
    assert f'data = data:{folder.parent}\n' in (workspace/'settings.ini').read_text()
    assert 'references: "data/door panels"' in (workspace/'params'/'32_siamese'/'door_panels.yaml').read_text()
    assert cli('start', str(folder)).returncode == 0 # The same again is no error
    overridden = cli('start', str(tmp_path_factory.mktemp('other')), '--add-data', INSPECT_LIB_DATA='data')
    assert overridden.returncode == 1


@pytest.mark.parametrize('name', ['io', 'nuts', 'only_good', 'kinds', 'coco'])
def test_the_run_succeeds_at_the_first_try(ws, name):
    "As start wrote it, but for sizes that take seconds"
    from conftest import run_cells
    from inspect_lib.report.conclusion import line, sentences
    draw, pipeline, _ = LAYOUTS[name]
    draw(ws.root/'data'/name)
    values = start(ws.root/'data'/name, ws, recognise(ws.root/'data'/name)).proposal.values
    small = {'32_siamese': dict(side=32, epochs=1, steps=2), '34_anomaly': dict(side=64, encoder='inspect-tiny'),
             '40_mix': dict(side=64, min_anchor=8, steps=2, evaluations=1, batch=2)}.get(pipeline, {})
    names = run_cells(pipeline, ws.root, **values | small)
    metrics = names['metrics']
    assert metrics['read'] and line(names['conclusion']).startswith('Usable: ') and names['conclusion'].level != 'good', 'start states no requirement'
    if name == 'only_good': assert 'finds defects is not known' in ' '.join(sentences(names['conclusion'])) and metrics['macro_f1']['value'] is None
    if pipeline == '40_mix': assert ' objects' in line(names['conclusion']) and not set(names['pool'].table.group) & set(names['test_pool'].table.group)
    else:
        tables = [t for key, t in names['tables'].items() if not (key == 'calibration' and names.get('by_the_others'))] # Each reference by those of other groups
        assert all(len(t) for t in tables)
        for i, a in enumerate(tables):
            for b in tables[i + 1:]: assert not set(a.image_path) & set(b.image_path) and not set(a.group) & set(b.group)


@pytest.mark.parametrize('pipeline, name', [('30_similarity', 'nuts'), ('32_siamese', 'io'), ('32_siamese', 'ok'), ('34_anomaly', 'kinds'), ('40_mix', 'coco')])
def test_a_template_runs_with_one_line_changed(ws, pipeline, name):
    "The folder, in own.yaml as it lies in params/; sizes that take seconds"
    from conftest import run_cells
    (classes('good', 'crack', n=40) if name == 'kinds' else LAYOUTS[name][0])(ws.root/'data'/name)
    text = (ROOT/'params'/pipeline/'own.yaml').read_text()
    lines = [line for line in text.splitlines() if not line.startswith('#') and 'data/FOLDER' in line]
    values = plain_yaml(text.replace(lines[0], lines[0].replace('data/FOLDER', f'data/{name}')))
    small = {'30_similarity': dict(k=3), '32_siamese': dict(side=32, epochs=1, steps=2), '34_anomaly': dict(side=64, encoder='inspect-tiny'),
             '40_mix': dict(side=64, steps=2, evaluations=1, batch=2)}[pipeline]
    names = run_cells(pipeline, ws.root, **values | small)
    assert len(lines) == 1 and names['metrics']['read']


@pytest.mark.parametrize('pipeline', ['30_similarity', '32_siamese', '34_anomaly'])
def test_the_first_run_of_a_notebook_shows_something_sensible(ws, pipeline):
    "With the defaults of its parameters cell, on data/smoke: most answers are right, and most are given"
    from conftest import run_cells
    (ws.root/'data'/'smoke').symlink_to(ROOT/'data'/'smoke')
    metrics = run_cells(pipeline, ws.root)['metrics']
    f1 = metrics['inspector']['macro_f1'] if pipeline == '32_siamese' else metrics['macro_f1']
    assert f1['value'] > .8 and metrics['unlike'] < .3*f1['n']
    if pipeline == '30_similarity': assert metrics['unknown']['coverage']['value'] > .3


def test_a_test_set_of_training_pictures_is_said_and_divided_anew(ws):
    folder = ws.root/'data'/'gleich'
    for label in ('IO', 'NIO'): fill(folder/'train'/label, 24)
    shutil.copytree(folder/'train', folder/'test')
    started = start(folder, ws, recognise(folder))
    assert 'same pictures in training and test' in started.proposal.why and started.proposal.why in started.path.read_text()
    assert not started.proposal.values['reference_split'] and started.proposal.values['on_leak'] == 'drop'
