"Two runs compared, and sweeps whose intervals cover pictures and seeds."
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit

from conftest import add_pipeline
from inspect_lib.core.image import write_image
from inspect_lib.core.seed import generator
from inspect_lib.judge.outcome import OUTCOMES, outcomes
from inspect_lib.judge.paired import changed_answers, pair_pictures, paired_difference
from inspect_lib.judge.repetition import estimate_from_answers, estimate_from_intervals
from inspect_lib.judge.statistic import outcome_definition, ratio_statistic

BODY = ("from inspect_lib.run.work import begin, finish\nrun = begin('41_judge', globals())",
        """import numpy as np, pandas as pd
from inspect_lib.core.paths import resolve
from inspect_lib.core.seed import generator
from inspect_lib.judge.classify import score_classes
from inspect_lib.judge.outcome import judged_table, write_judged
gt = np.array(['IO', 'NIO']*pictures, object)[:pictures]
rng = generator(seed, 'answers')
hard = generator(0, 'hard').random(pictures) + rng.normal(0, .05, pictures)
pred = np.where(hard > skill, np.where(gt == 'IO', 'NIO', 'IO'), gt)
names = [str(resolve(f'{folder}/{i}.png')) for i in range(pictures)]
table = pd.DataFrame(dict(image_path=names, group=np.arange(pictures)//2, gt_label=gt, pred_label=pred, pred_score=hard))
if answers: write_judged(run.folder, judged_table(table))
scores = score_classes(gt, pred, table.group, generator(0, 'bootstrap'))
macro = scores[(scores.name == 'macro') & (scores.measure == 'f1')].to_dict('records')[0]""",
        "from inspect_lib.data.overlap import Overlap\nfrom inspect_lib.report.conclusion import Conclusion, plain_conclusion\n"
        "finish(run, dict(macro_f1=macro), plain_conclusion(Conclusion('Judged.', overlap=Overlap(remembered, pictures))), '<!doctype html><title>j</title>')")
PARAMETERS = """pictures: int = 40
skill: float = 0.7  # Share that is easy
folder: str = 'data/door'
answers: bool = True  # Whether judged.csv is left
remembered: int = 0  # Judged pictures that were also used
method: str = 'a'
seed: int = 0"""


@pytest.fixture
def judges(workspace):
    "A workspace with a pipeline that judges pictures"
    add_pipeline(workspace, '41_judge', PARAMETERS, *BODY)
    (workspace/'params'/'41_judge').mkdir(); (workspace/'params'/'sweeps').mkdir()
    for name, text in dict(old='skill: 0.5', new='skill: 0.8', bare='answers: false', few='pictures: 20', leak='skill: 0.8\nremembered: 30', others='skill: 0.8\nfolder: data/window').items():
        (workspace/'params'/'41_judge'/f'{name}.yaml').write_text(text + '\n')
    for i in range(40): write_image(workspace/'data'/'door'/f'{i}.png', np.full((32, 32, 3), 5*i, np.uint8))
    return workspace


@pytest.fixture
def said(here):
    "Run a command: its status, stdout and stderr"
    def run(*argv):
        done = here(*argv)
        return done.returncode, done.stdout, done.stderr
    return run


def key_of(root, name): return next(p.name for p in (root/'reports'/'41_judge'/name).iterdir() if re.fullmatch('[0-9a-f]{16}', p.name))


def test_two_runs_under_every_name_they_have(judges, said):
    for name in ('old', 'new'): assert said('run', '41_judge', name)[0] == 0
    a, b = key_of(judges, 'old'), key_of(judges, 'new')
    status, out, err = said('compare', '41_judge', 'old', '41_judge', 'new')
    assert status == 0 and 'Parameters: skill 0.5 -> 0.8.' in out and 'Data: the same.' in out and 'Code: the same.' in out, err
    assert '40 pictures in 20 groups were judged by both, 0 only by A, 0 only by B.' in out
    right = next(line for line in out.splitlines() if line.startswith('answered rightly'))
    assert 'on the 40 pictures of both +' in right and right.endswith(': higher in B') and 'macro_f1' in out and re.search(r'changed: \d+ wrong, now right\.', out)
    page = judges/'reports'/'compare'/f'{a}-{b}'/'report.html'
    assert out.splitlines()[-1] == f'reports/compare/{a}-{b}/report.html' and page.is_file()
    for first, second in ((a[:8], b), (f'old@{a[:4]}', f'41_judge/new@{b[:4]}'), ('old', 'reports/41_judge/new'), (str(judges/'reports'/'41_judge'/'old'/a), f'reports/41_judge/new/{b}')):
        assert said('compare', first, second)[1] == out, (first, second)
    assert said('verify')[0] == 0 and len(json.loads(said('list', '--json')[1])) == 2 # The page is no run, and changes none
    assert said('reproduce', '41_judge/old')[0] == 0 # Runs are named alike everywhere
    html = page.read_text()
    assert 'Wrong, now right' in html and 'data:image/jpeg' in html and 'verdict good' not in html and '<script' not in html


def test_the_comparison_as_json(judges, said):
    for name in ('old', 'new'): said('run', '41_judge', name)
    status, out, _ = said('compare', 'old', 'new', '--json')
    told = json.loads(out)
    assert status == 0 and told['params'] == [dict(name='skill', a=.5, b=.8)] and told['pictures'] == dict(both=40, groups=20, only_a=[], only_b=[])
    row = next(r for r in told['metrics'] if r['name'] == 'macro_f1')
    assert row['paired'] and row['low'] < row['difference'] < row['high'] and row['unit'] == '%'
    pictures = pd.read_csv(judges/'reports'/'compare'/f"{told['a']['key']}-{told['b']['key']}"/'pictures.csv')
    moved = pictures[pictures.outcome_a != pictures.outcome_b]
    assert len(pictures) == 40 and len(moved) == len(told['changed']) and set(moved.image_path) == {c['image_path'] for c in told['changed']}


def test_runs_that_can_be_compared_in_part(judges, said):
    for name in ('old', 'new', 'bare', 'few'): said('run', '41_judge', name)
    out = said('compare', 'old', 'bare')[1]
    assert 'B left no answers to every picture' in out and 'not paired' in out and 'Answers that changed' not in out
    assert '20 pictures in 10 groups were judged by both, 20 only by A, 0 only by B.' in said('compare', 'old', 'few')[1]
    add_pipeline(judges, '42_other', PARAMETERS, BODY[0].replace('41_judge', '42_other'), *BODY[1:])
    (judges/'params'/'42_other').mkdir(); (judges/'params'/'42_other'/'old.yaml').write_text('skill: 0.8\n')
    said('run', '42_other', 'old')
    out = said('compare', '41_judge/old', '42_other/old')[1]
    assert 'of two pipelines, 41_judge and 42_other' in out and 'higher in B' in out
    shutil.move(judges/'data'/'door', judges/'data'/'moved') # Pictures that lie elsewhere now, and in another run by content
    assert 'are not there any more' in (judges/said('compare', '41_judge/old', 'new')[1].splitlines()[-1]).read_text()


def test_a_run_on_remembered_pictures_is_never_called_better(judges, said):
    for name in ('old', 'leak'): said('run', '41_judge', name)
    out = said('compare', 'old', 'leak')[1]
    assert 'B is no result: 30 of 40 pictures that it judged were also used to make it.' in out and 'higher in B' not in out and 'lower in B' not in out
    html = (judges/out.splitlines()[-1]).read_text()
    assert 'No comparison: B is no result' in html and 'higher in B' not in html and 'B is higher' not in html
    told = json.loads(said('compare', 'leak', 'old', '--json')[1])
    assert told['notes'][0].startswith('A is no result') and {row['no_comparison'] for row in told['metrics']} == {'A is no result'}


def test_runs_that_judged_no_picture_in_common_are_not_ranked(judges, said):
    for i in range(40): write_image(judges/'data'/'window'/f'w{i}.png', np.full((32, 32, 3), 5*i + 2, np.uint8))
    for name in ('old', 'others'): said('run', '41_judge', name)
    out = said('compare', 'old', 'others')[1]
    assert 'No picture was judged by both' in out and 'other pictures' in out and 'higher in B' not in out, out
    assert 'No comparison: the runs judged no picture in common.' in (judges/out.splitlines()[-1]).read_text()


def test_pictures_that_were_copied_are_the_same_pictures(judges, said):
    shutil.copytree(judges/'data'/'door', judges/'data'/'copy')
    (judges/'params'/'41_judge'/'copy.yaml').write_text("folder: data/copy\nskill: 0.8\n")
    for name in ('old', 'copy'): said('run', '41_judge', name)
    assert '40 pictures in 20 groups were judged by both, 0 only by A' in said('compare', 'old', 'copy')[1]


@pytest.mark.parametrize(('argv', 'sentence'), [
    (('old',), 'Two runs are compared, got 1'), (('41_judge', 'old'), 'Two runs are compared, got 1 (41_judge/old)'), (('old', 'new', 'bare'), 'got 3'),
    (('old', 'nwe'), "no finished run 'nwe'"), (('old', '0123abcd'), "no finished run '0123abcd'"), (('old', 'old'), 'are the same run'), (('old', '../x'), 'A run is named by its key'),
    (('old', 'new@ffff'), 'There is no finished run new@ffff')])
def test_what_names_no_two_runs_is_one_sentence(judges, said, argv, sentence):
    for name in ('old', 'new'): said('run', '41_judge', name)
    status, out, err = said('compare', *argv)
    assert status == 1 and not out and sentence in err and err.startswith('inspect-lib: ') and err.count('\n') == 1, err
    assert not (judges/'reports'/'compare').exists()


def test_a_run_that_was_changed_is_not_compared(judges, said):
    for name in ('old', 'new'): said('run', '41_judge', name)
    path = judges/'reports'/'41_judge'/'new'/key_of(judges, 'new')/'judged.csv'
    path.write_text(path.read_text().replace('wrong', 'right'))
    assert 'judged.csv was changed after the run' in said('compare', 'old', 'new')[2]


def test_the_page_fits_a_telephone(judges, said, browser):
    for name in ('old', 'new'): said('run', '41_judge', name)
    path = judges/said('compare', 'old', 'new')[1].splitlines()[-1]
    page = browser.new_page(viewport=dict(width=390, height=800)); page.goto(path.as_uri())
    assert page.evaluate('document.documentElement.scrollWidth') <= 390 and page.locator('h1').inner_text() == 'Two runs compared'
    page.close()


def sweep(root, said, **more):
    "A sweep over two methods: its page, and its record"
    spec = dict(executor='in-process', steps=dict(s=dict(notebook='41_judge', grid=dict(method=['a', 'b']), **more.pop('step', {}))), report=dict(metric='macro_f1', axes=['method']) | more)
    (root/'params'/'sweeps'/'s.yaml').write_text(json.dumps(spec))
    status, out, err = said('sweep', 's')
    assert status == 0, out + err
    return (root/'reports'/'sweeps'/'s'/'report.html').read_text(), json.loads((root/'reports'/'sweeps'/'s'/'sweep.json').read_text())


def test_a_sweeps_interval_covers_pictures_and_seeds(judges, said):
    page, record = sweep(judges, said, step=dict(seeds=[0, 1, 2]), required=.2)
    assert '40 pictures in 20 groups, 3 seeds' in record['headline'] and record['headline'].startswith('Usable: yes.')
    assert record['verdict']['level'] == 'good' and 'computed from the answers to every picture' in page
    page, record = sweep(judges, said, step=dict(seeds=[0, 1, 2], params=dict(answers=False)))
    assert 'runs&#39; own intervals and the spread between the seeds' in page and record['verdict']['level'] == 'measured'
    assert 'verdict good' not in page and 'badge good' not in page # Nobody required anything
    page, record = sweep(judges, said, required=.2)
    assert '1 seed' in record['headline'] and 'not what another seed would give' in page


def test_shares_are_per_cent_on_the_command_line_too(judges, said):
    sweep(judges, said, step=dict(seeds=[0, 1]))
    out = said('table', 's')[1]
    assert len(re.findall(r'done +[ab] +[01] +\d\d\.\d %', out)) == 4, out
    assert 0 < pd.read_csv(judges/'reports'/'sweeps'/'s'/'table.csv')['metrics.macro_f1.value'].max() <= 1 # Files keep the numbers


@pytest.mark.parametrize('seeds', [2, 4])
@pytest.mark.parametrize('spread', [0., .5])
def test_the_interval_over_pictures_and_seeds_holds_the_truth(seeds, spread):
    rng = generator(0, 'coverage', seeds, str(spread))
    truth, inside = expit(1.2 + rng.normal(0, np.hypot(1, spread), 400_000)).mean(), []
    for _ in range(120):
        chance = expit(1.2 + rng.normal(0, 1, (1, 40)) + rng.normal(0, spread, (seeds, 1)))
        e = estimate_from_answers([ratio_statistic(h, np.full(40, 2), range(40)) for h in rng.binomial(2, chance)], rng)
        inside.append(e.low <= truth <= e.high)
    assert .87 <= np.mean(inside), np.mean(inside)


LABELS = st.lists(st.sampled_from(['x', 'y', "I don't know"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(LABELS, LABELS, st.integers(0, 8), st.integers(1, 4))
def test_pairs_are_complete_and_differences_have_a_sign(first, second, shift, size):
    def judged(pred, start):
        gt = ['x' if i % 2 else 'y' for i in range(start, start + len(pred))]
        return pd.DataFrame(dict(image_path=[f'data/{i}' for i in range(start, start + len(pred))], group=[str(i//size) for i in range(len(pred))], gt_label=gt, pred_label=pred, pred_score=.5, outcome=outcomes(gt, pred)))
    a, b = judged(first, 0), judged(second, shift)
    there, back = pair_pictures(a, b), pair_pictures(b, a)
    assert len(there.a) + len(there.only_a) == len(a) and len(there.b) + len(there.only_b) == len(b)
    assert there.a.image_path.tolist() == there.b.image_path.tolist() and (there.only_a, there.only_b) == (back.only_b, back.only_a)
    assert there.groups <= min(a.group.nunique(), b.group.nunique())
    for outcome in OUTCOMES:
        d, e = (paired_difference(p, outcome_definition(outcome), generator(0)) for p in (there, back))
        assert (d is None) == (e is None) == (not len(there.a))
        if d is None: continue
        assert d['value'] == pytest.approx(-e['value'])
        if there.groups > 1: assert d['low'] <= d['value'] <= d['high'] and -1 <= d['low'] and d['high'] <= 1
    assert len(changed_answers(there)) == int(((there.a.outcome != there.b.outcome) | ((there.a.pred_label != there.b.pred_label) & (there.a.outcome == 'wrong'))).sum())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0, .3))
def test_an_estimate_holds_its_mean_and_stays_a_share(values, half):
    e = estimate_from_intervals(values, [max(0., v - half) for v in values], [min(1., v + half) for v in values])
    assert e.value == pytest.approx(np.mean(values)) and e.seeds == len(values)
    if e.covers: assert 0 <= e.low <= e.value + 1e-9 and e.value - 1e-9 <= e.high <= 1
