"""Real and synthetic pictures, mixed: the pipelines in a chain on tiny sets, leaks that must be found, and what users get wrong."""
import json
import shutil

import numpy as np
import pytest
import yaml

from conftest import ROOT
from inspect_lib.core.error import UserError
from inspect_lib.core.file import read_json
from inspect_lib.core.image import write_image
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.core.seed import generator
from inspect_lib.data.mix import check_disjoint, mix_by_ratio, stratified_order, take_mix
from inspect_lib.formats.pool import merge_pools, read_pool, read_set, read_training_list, write_training_list
from inspect_lib.judge.substitute import read_mixes
from inspect_lib.run.store import list_runs
from inspect_lib.synth.glyph import Line, glyph, set_line
from inspect_lib.synth.line import draw_line, write_set
from inspect_lib.synth.pair import cut_pairs


@pytest.fixture
def lines(workspace):
    "The pipelines, and numbers on surfaces as they come with the repository"
    ignore = shutil.ignore_patterns('.ipynb_checkpoints')
    shutil.copytree(ROOT/'nbs'/'pipelines', workspace/'nbs'/'pipelines', ignore=ignore)
    shutil.copytree(ROOT/'data'/'smoke'/'lines', workspace/'data'/'smoke'/'lines')
    shutil.copytree(ROOT/'data'/'smoke'/'anomaly', workspace/'data'/'smoke'/'anomaly')
    def params(pipeline: str, **values):
        path = workspace/'params'/pipeline/'tiny.yaml'; path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(values))
    params('20_stamp'); params('24_spoil')
    params('22_compose', generators='reports/20_stamp/tiny', n_pictures=6)
    params('40_mix', synthetic='reports/22_compose/tiny')
    params('42_substitute', mixes=['reports/40_mix/tiny'])
    return workspace


@pytest.fixture
def annotated(tmp_path):
    "Six numbers on surfaces as a COCO set, and its file's content"
    write_set((draw_line(0, i, 64, 3) for i in range(6)), tmp_path/'annotated')
    return tmp_path/'annotated'


def changed(annotated, change) -> None:
    "Change what stands in the COCO file"
    path = annotated/'coco'/'annotations.json'
    data = json.loads(path.read_text()); change(data)
    path.write_text(json.dumps(data))


def newest(root, pipeline: str) -> tuple[dict, object]:
    "Record and folder of the only run of a pipeline"
    record, = [r for r in list_runs(open_workspace(root)) if r['pipeline'] == pipeline]
    return record['metrics'], root/'reports'/record['path']


def test_from_stamps_to_what_a_picture_is_worth(lines, cli, open_file):
    for pipeline in ('20_stamp', '22_compose', '40_mix', '42_substitute'):
        done = cli('run', pipeline, 'tiny')
        assert done.returncode == 0, done.stderr
    stamps, folder = newest(lines, '20_stamp')
    assert len(list((folder/'generators').glob('*.safetensors'))) == len(stamps['generators']) == 2
    composed, synthetic = newest(lines, '22_compose')
    pool = read_pool(synthetic)
    assert len(pool) == composed['pictures'] == 6 and {len(t.label) for t in pool.truths} <= {3, 4}
    assert set(read_training_list(synthetic).group) == set(read_pool(lines/'data'/'smoke'/'lines'/'train').table.group)
    mixed, folder = newest(lines, '40_mix')
    assert (mixed['real'], mixed['synthetic'], mixed['unlearned']) == (4, 4, []) and (folder/'model.safetensors').is_file()
    rates = mixed['parts']['all']
    assert sum(rates[name]['value'] for name in ('TP', 'misclassified', 'FN')) == pytest.approx(1)
    runs, counted = read_mixes([folder])
    assert runs.synthetic.tolist() == [4] and counted.objects.sum() == rates['TP']['n']
    worth, last = newest(lines, '42_substitute')
    assert worth['worths'][0]['value'] is None and worth['trainings'] == 1
    for place in (folder, last):
        page = open_file(place/'report.html')
        assert page.complaints == [] and str(lines) not in (place/'report.html').read_text()
        assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')


def test_what_another_schedule_changes(lines, cli, open_file):
    "Runs that differ in more than mix and seed are not one experiment; the report holds them against each other"
    for name, more in dict(plain={}, schedule=dict(hard_schedule=[[0, 1], [1, 0]])).items():
        (lines/'params'/'40_mix'/f'{name}.yaml').write_text(yaml.safe_dump(more))
        done = cli('run', '40_mix', name)
        assert done.returncode == 0, done.stderr
    done = cli('run', '42_substitute', 'tiny', '-p', 'mixes=[reports/40_mix/plain, reports/40_mix/schedule]')
    assert done.returncode == 0, done.stderr
    metrics, folder = newest(lines, '42_substitute')
    assert {row['experiment'] for row in metrics['table']} == \
        {'4 real + 4 synthetic', '4 real + 4 synthetic, hard schedule [[0, 1], [1, 0]]'}
    text = open_file(folder/'report.html').inner_text('body')
    for title in ('What other ways of mixing change', 'What a number constraint adds', 'The same pictures by every experiment'): assert title in text


def headline_of(root, pipeline: str) -> str:
    "Headline of the only run of a pipeline"
    record, = [r for r in list_runs(open_workspace(root)) if r['pipeline'] == pipeline]
    return record['headline']


@pytest.mark.parametrize('real', [False, True])
def test_a_study_of_stand_ins_is_called_invented(lines, cli, open_file, real):
    "Where the pictures called real were drawn or rendered, headline and verdict begin with that; somebody's own pictures are real"
    if real:
        for name in ('train', 'test'): (lines/'data'/'smoke'/'lines'/name/'facts.csv').unlink()
    for pipeline, args in (('40_mix', ['-p', 'synthetic=data/smoke/lines/synthetic']), ('42_substitute', [])):
        done = cli('run', pipeline, 'tiny', *args)
        assert done.returncode == 0, done.stderr
    invented = 'Invented study: the pictures called real are stand-ins, rendered or drawn.'
    assert (invented in headline_of(lines, '42_substitute')) is not real and headline_of(lines, '42_substitute').startswith('Usable: not known. ')
    page = open_file(newest(lines, '42_substitute')[1]/'report.html')
    assert page.inner_text('.verdict').count('Invented study') == (0 if real else 1)
    assert newest(lines, '40_mix')[0]['stand_in'] is not real


def test_an_invented_study_is_called_so(lines, cli):
    (lines/'params'/'42_substitute'/'none.yaml').write_text('')
    done = cli('run', '42_substitute', 'none')
    assert done.returncode == 0, done.stderr
    assert headline_of(lines, '42_substitute').startswith('Usable: not known. Invented study, computed to try the report.')


def test_generators_that_saw_the_test(lines, cli):
    "Synthetic pictures carry the list of what their generators were trained on; a test on one of those is refused"
    synthetic = lines/'reports'/'synthetic'
    shutil.copytree(lines/'data'/'smoke'/'lines'/'synthetic', synthetic)
    test = read_pool(lines/'data'/'smoke'/'lines'/'test')
    (synthetic/'shown.csv').write_text(f"image_path,group\ndata/smoke/lines/train/coco/images/00000.png,{test.table.group[0]}\n")
    done = cli('run', '40_mix', 'tiny', '-p', 'synthetic=reports/synthetic')
    assert done.returncode and '1 of' in done.stderr and 'shown to a generator' in done.stderr and '(group, ' in done.stderr
    assert not list((lines/'reports').glob('40_mix/tiny/*/metrics.json'))


def test_painted_defects(lines, cli):
    done = cli('run', '24_spoil', 'tiny')
    assert done.returncode == 0, done.stderr
    metrics, folder = newest(lines, '24_spoil')
    pool, found = read_pool(folder), read_set(folder)
    assert metrics['pictures'] == len(pool) == 8 and pool.classes == ('defect',) and all(len(t.label) for t in pool.truths)
    good = {p.relative_to(lines).as_posix() for p in (lines/'data'/'smoke'/'anomaly'/'train'/'good').glob('*.png')}
    assert set(pool.table.group) <= good and sum(a.rle is not None for p in found.pictures for a in p.annotations) == metrics['defects']


def test_pictures_of_the_test_are_not_learned_from(annotated, tmp_path):
    shutil.copytree(annotated, tmp_path/'test')
    test = read_pool(tmp_path/'test')
    with pytest.raises(UserError, match=r'6 of 6 pictures of the test are also learned from, e\.g\. .*equal'):
        check_disjoint(read_pool(annotated).table, test.table)
    write_set((draw_line(1, i, 64, 3) for i in range(6)), tmp_path/'other')
    other = read_pool(tmp_path/'other')
    check_disjoint(other.table, test.table)
    with pytest.raises(UserError, match=r'1 of 6 .*\(group, '):
        check_disjoint(other.table.assign(group=[test.table.group[2], *other.table.group[1:]]), test.table)


def test_lists_of_what_was_shown_stay_readable(lines, monkeypatch):
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(lines))
    test = read_pool(lines/'data'/'smoke'/'lines'/'test')
    shown = test.table.assign(group=test.table.image_path)
    write_training_list(shown, lines/'reports'/'stamps')
    assert read_training_list(lines/'reports'/'stamps').equals(shown[['image_path', 'group']])
    assert str(lines) not in (lines/'reports'/'stamps'/'shown.csv').read_text()


def test_more_pictures_than_there_are(annotated):
    table = stratified_order(read_pool(annotated).table, ['site', 'visibility'], generator(0))
    with pytest.raises(UserError, match='7 real pictures are asked for, and there are 6'): take_mix(mix_by_ratio(7, 0.), table, table)
    with pytest.raises(UserError, match='8 synthetic pictures are asked for, and there are 6'): take_mix(mix_by_ratio(10, .8), table, table)
    with pytest.raises(UserError, match='1 synthetic pictures are asked for, and there are 0'): take_mix(mix_by_ratio(2, .5), table, table.head(0))


@pytest.mark.parametrize('ratio', [-.1, 1.01, float('nan')])
def test_ratios(ratio):
    with pytest.raises(UserError, match=r'synthetic share must lie in 0\.\.1'): mix_by_ratio(8, ratio)


@pytest.mark.slow
def test_a_ratio_on_the_command_line(lines, cli):
    done = cli('run', '40_mix', 'tiny', '-p', 'synthetic=data/smoke/lines/synthetic', '-p', 'ratio=1.5')
    assert done.returncode and 'The synthetic share must lie in 0..1, got 1.5.' in done.stderr and 'Traceback' not in done.stderr


def test_glyphs_that_are_not_defined():
    with pytest.raises(UserError, match="There is no glyph 'ß'"): glyph('ß')
    with pytest.raises(UserError, match="There is no glyph '-'"): set_line(Line('12-4', 10, (50, 50)))


def test_boxes_outside_the_picture(annotated):
    changed(annotated, lambda data: data['annotations'][0].update(bbox=[60, 5, 30, 10]))
    with pytest.raises(UserError, match='annotation 1: the box .* reaches beyond its picture'): read_pool(annotated)


def test_pictures_that_are_missing(annotated):
    (annotated/'coco'/'images'/'00002.png').unlink()
    with pytest.raises(UserError, match='1 of 6 pictures are missing, e.g. .*00002.png'): read_pool(annotated)


def test_gaps_in_ids(annotated):
    before = read_pool(annotated)
    def spread(data):
        for row in data['images']: row['id'] = 7*row['id']
        for row in data['categories']: row['id'] = 3*row['id'] + 10
        for row in data['annotations']: row.update(id=5*row['id'], image_id=7*row['image_id'], category_id=3*row['category_id'] + 10)
    changed(annotated, spread)
    after = read_pool(annotated)
    assert after.table.equals(before.table)
    for a, b in zip(after.truths, before.truths): assert a.label.tolist() == b.label.tolist() and np.array_equal(a.xyxy, b.xyxy)


def test_annotations_of_no_picture(annotated):
    changed(annotated, lambda data: data['images'].pop(0))
    with pytest.raises(UserError, match='annotation 1: there is no image 1'): read_pool(annotated)


def test_facts_about_a_picture_twice(annotated):
    path = annotated/'facts.csv'
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + '\n')
    with pytest.raises(UserError, match="names '00000' twice"): read_pool(annotated)


def test_a_mask_without_its_picture(tmp_path):
    write_image(tmp_path/'a.png', np.full((32, 32), 90, np.uint8)); write_image(tmp_path/'m.png', np.full((32, 32), 255, np.uint8))
    (tmp_path/'index.csv').write_text('image,mask,label\na.png,m.png,crack\nb.png,m.png,crack\n')
    with pytest.raises(UserError, match="line 3: 'b.png' does not exist"): read_pool(tmp_path)


def test_a_mask_of_another_size(tmp_path):
    write_image(tmp_path/'a.png', np.full((32, 32), 90, np.uint8)); write_image(tmp_path/'m.png', np.full((16, 32), 255, np.uint8))
    (tmp_path/'index.csv').write_text('image,mask,label\na.png,m.png,crack\n')
    with pytest.raises(UserError, match='m.png is 32 x 16 pixels, its picture 32 x 32'): read_pool(tmp_path)


def test_pairs_need_masks(annotated):
    def only_boxes(data):
        for row in data['annotations']: row['segmentation'] = []
    changed(annotated, only_boxes)
    with pytest.raises(UserError, match='No picture of the set has an outlined character'): cut_pairs(read_set(annotated), 32)


def test_a_split_that_is_not_there(tmp_path, annotated):
    write_image(tmp_path/'a.png', np.full((32, 32), 90, np.uint8)); write_image(tmp_path/'m.png', np.full((32, 32), 255, np.uint8))
    (tmp_path/'index.csv').write_text('image,mask,label,split\na.png,m.png,crack,train\n')
    with pytest.raises(UserError, match="There is no split 'val'"): read_pool(tmp_path, 'val')
    with pytest.raises(UserError, match="without splits, so 'val'"): read_pool(annotated, 'val')


def test_a_class_that_the_mix_does_not_show(lines, cli):
    "It is tested all the same, and the report says so"
    def without(text):
        data = json.loads(text); numbers = {row['name']: row['id'] for row in data['categories']}
        return json.dumps(data | dict(annotations=[a for a in data['annotations'] if a['category_id'] != numbers['3']]))
    for name in ('train', 'synthetic'):
        path = lines/'data'/'smoke'/'lines'/name/'coco'/'annotations.json'
        path.write_text(without(path.read_text()))
    done = cli('run', '40_mix', 'tiny', '-p', 'synthetic=data/smoke/lines/synthetic')
    assert done.returncode == 0, done.stderr
    metrics, folder = newest(lines, '40_mix')
    assert metrics['unlearned'] == ['3'] and 'No picture of the mix shows 3' in (folder/'report.html').read_text()
    test = read_pool(lines/'data'/'smoke'/'lines'/'test')
    assert '3' in test.classes and '3' not in merge_pools(read_pool(lines/'data'/'smoke'/'lines'/'train'), test[[]]).classes
    assert read_json(folder/'model.json')['config']['classes'].count('3') == 0
