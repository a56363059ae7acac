"""The key covers everything that is read: awkward inputs, real runs whose every opened file is compared, code and pictures changed meanwhile."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, add_pipeline
from inspect_lib.core.error import UserError
from inspect_lib.core.file import folder_files
from inspect_lib.core.image import write_image
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.data.folder import read_folder, read_picture
from inspect_lib.formats.content import input_files
from inspect_lib.formats.pool import is_stand_in, read_pool
from inspect_lib.run.params import declared
from inspect_lib.run.store import content_hash, list_runs, verify_run
from inspect_lib.run.work import identify, pipeline_notebook

SMOKE = ROOT/'data'/'smoke'


def draw(path: Path, grey: int = 90):
    write_image(path, np.full((24, 32), grey, np.uint8))


def photos(root: Path) -> Path:
    "Pictures of two classes, in a folder that is no input"
    for i, name in enumerate(('good/0.png', 'good/1.png', 'bad/2.png')): draw(root/'photos'/name, 40*i)
    return root/'photos'


def linked(root: Path) -> tuple[Path, Path]: # What is given as an input, and a picture of it
    (root/'set').mkdir()
    for name in ('good', 'bad'): (root/'set'/name).symlink_to(photos(root)/name)
    return root/'set', root/'photos'/'bad'/'2.png'


def index(root: Path) -> tuple[Path, Path]:
    (photos(root)/'index.csv').write_text('image,label\ngood/0.png,good\nbad/2.png,bad\n')
    return root/'photos'/'index.csv', root/'photos'/'bad'/'2.png'


def index_mask(root: Path) -> tuple[Path, Path]:
    write_image(photos(root)/'mask.png', np.eye(24, 32, dtype=bool))
    (root/'photos'/'index.csv').write_text('image,label,mask\ngood/0.png,good,\nbad/2.png,bad,mask.png\n')
    return root/'photos'/'index.csv', root/'photos'/'mask.png'


def linked_index(root: Path) -> tuple[Path, Path]:
    place, picture = index(root)
    (root/'set').mkdir()
    for name in ('index.csv', 'good', 'bad'): (root/'set'/name).symlink_to(root/'photos'/name)
    return root/'set'/'index.csv', picture


def yolo(root: Path, as_file=True, where='../elsewhere/images') -> tuple[Path, Path]:
    draw(root/'elsewhere'/'images'/'a.png'); (root/'elsewhere'/'labels').mkdir()
    (root/'elsewhere'/'labels'/'a.txt').write_text('0 .5 .5 .5 .5\n')
    (root/'set').mkdir()
    (root/'set'/'data.yaml').write_text(f'train: {where}\nnames: [nut]\n')
    return root/'set'/'data.yaml' if as_file else root/'set', root/'elsewhere'/'images'/'a.png'


def yolo_labels(root: Path) -> tuple[Path, Path]:
    return yolo(root)[0], root/'elsewhere'/'labels'/'a.txt'


def yolo_absolute(root: Path) -> tuple[Path, Path]: return yolo(root, where=root/'elsewhere'/'images')
def yolo_folder(root: Path) -> tuple[Path, Path]: return yolo(root, as_file=False)


def yolo_path(root: Path) -> tuple[Path, Path]:
    found = yolo(root)
    found[0].write_text('path: ../elsewhere\ntrain: images\nnames: [nut]\n')
    return found


def coco(root: Path) -> tuple[Path, Path]:
    draw(root/'elsewhere'/'a.png'); (root/'set').mkdir(); (root/'set'/'images').symlink_to(root/'elsewhere')
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9])
    (root/'set'/'coco.json').write_text(json.dumps(dict(images=[dict(id=1, file_name='a.png', width=32, height=24)],
                                                        annotations=[box], categories=[dict(id=1, name='nut')])))
    return root/'set'/'coco.json', root/'elsewhere'/'a.png'


def weights(root: Path) -> tuple[Path, Path]:
    (root/'model').mkdir()
    for name in ('model.safetensors', 'model.json'): (root/'model'/name).write_text(name)
    return root/'model'/'model.safetensors', root/'model'/'model.json'


INPUTS = [linked, index, index_mask, linked_index, yolo, yolo_labels, yolo_absolute, yolo_folder, yolo_path, coco, weights]


@pytest.mark.parametrize('make', INPUTS, ids=lambda f: f.__name__)
def test_whatever_an_input_leads_to_is_in_its_hash(tmp_path, make):
    place, file = make(tmp_path)
    before = content_hash(place)
    assert file.resolve() in {p.resolve() for p in input_files(place).values()}
    file.write_bytes(file.read_bytes() + b'\0' if file.suffix != '.txt' else b'0 .4 .4 .2 .2\n')
    assert content_hash(place) != before


@pytest.mark.parametrize('make', [m for m in INPUTS if m is not weights], ids=lambda f: f.__name__)
def test_readers_read_no_more_than_what_is_listed(tmp_path, make):
    place, _ = make(tmp_path)
    listed = {p.resolve() for p in input_files(place).values()}
    try: table = read_pool(place).table
    except UserError: table = read_folder(place)
    assert {Path(p).resolve() for p in table.image_path} <= listed


def test_hidden_files_are_neither_read_nor_hashed(tmp_path):
    "Previews, checkpoints and what operating systems leave, in class folders, an index and a YOLO set"
    place = photos(tmp_path)
    before, rows = content_hash(place), len(read_folder(place))
    for name in ('good/.ipynb_checkpoints/0-checkpoint.png', 'good/.thumbs/0.png', 'good/._0.png', '__MACOSX/good/._0.png', 'bad/Thumbs.db', '.DS_Store'):
        draw(tmp_path/'x.png'); (place/name).parent.mkdir(exist_ok=True, parents=True); shutil.copy(tmp_path/'x.png', place/name)
    assert content_hash(place) == before and len(read_folder(place)) == rows
    (place/'index.csv').write_text('image,label\ngood/.thumbs/0.png,good\n')
    with pytest.raises(UserError, match='line 2: .*hidden'): read_folder(place)
    data, _ = yolo(tmp_path)
    before = content_hash(data)
    draw(tmp_path/'elsewhere'/'images'/'.thumbs'/'a.png'); draw(tmp_path/'elsewhere'/'images'/'._b.png')
    assert content_hash(data) == before and len(read_pool(data)) == 1


def facts_yolo(root: Path) -> Path:
    place = yolo(root)[0]; (root/'set'/'facts.csv').write_text('image,group\na,1\n')
    return place


def facts_coco(root: Path) -> Path:
    place = coco(root)[0]; (root/'set'/'facts.csv').write_text('image,group\na,1\n')
    return place


def beside_annotations(root: Path, as_file=False) -> Path:
    "CVAT's layout, given by the folder of its annotations"
    place = coco(root)[0]
    (root/'set'/'annotations').mkdir(); place.rename(root/'set'/'annotations'/'annotations.json')
    (root/'set'/'images').unlink(); shutil.copytree(root/'elsewhere', root/'set'/'images')
    if as_file: (root/'set'/'facts.csv').write_text('image,group\na,1\n')
    return root/'set'/'annotations'/('annotations.json' if as_file else '')


def beside_annotations_file(root: Path) -> Path: return beside_annotations(root, as_file=True)


def yolo_list(root: Path) -> Path:
    place = yolo(root, where='../list.txt')[0]; (root/'list.txt').write_text('elsewhere/images/a.png\n')
    return place


def voc(root: Path) -> Path:
    draw(root/'set'/'JPEGImages'/'a.png'); (root/'set'/'Annotations').mkdir()
    box = ''.join(f'<{k}>{v}</{k}>' for k, v in dict(xmin=2, ymin=2, xmax=9, ymax=9).items())
    (root/'set'/'Annotations'/'a.xml').write_text(f'<annotation><filename>a.png</filename><object><name>nut</name><bndbox>{box}</bndbox></object></annotation>')
    return root/'set'


HEARD, LISTENING = set(), []


def _hear(event, given):
    if LISTENING and event == 'open' and isinstance(given[0], (str, bytes, os.PathLike)): HEARD.add(Path(os.path.realpath(os.fsdecode(given[0]))))


@pytest.mark.parametrize('make', [facts_yolo, facts_coco, beside_annotations, beside_annotations_file, yolo_list, voc,
                                  *(lambda root, m=m: m(root)[0] for m in INPUTS if m is not weights)])
def test_every_file_that_a_reader_opens_is_listed(tmp_path, make):
    "The tables, texts and lists of a set too, not its pictures alone"
    place = make(tmp_path)
    if not hasattr(_hear, 'hooked'): sys.addaudithook(_hear); _hear.hooked = True # It stays for good
    HEARD.clear(); LISTENING.append(1)
    try: table = None if is_stand_in(place) else read_pool(place).table
    except UserError: table = read_folder(place)
    read_picture(table.image_path[0]); LISTENING.clear()
    inside = {p for p in HEARD if p.is_relative_to(tmp_path.resolve())}
    assert inside and inside <= {p.resolve() for p in input_files(place).values()}, inside


@pytest.mark.parametrize('make, name', [(facts_yolo, 'facts.csv'), (facts_coco, 'facts.csv'), (beside_annotations_file, 'facts.csv'), (beside_annotations, 'images/a.png'), (beside_annotations_file, 'images/a.png')])
def test_what_lies_beside_a_file_or_its_folder_is_in_the_hash(tmp_path, make, name):
    place = make(tmp_path)
    before = content_hash(place)
    with (tmp_path/'set'/name).open('ab') as file: file.write(b'\n')
    assert content_hash(place) != before


NAMES = st.sampled_from(['a', 'b', '.hidden', 'train', '@eaDir'])
STEPS = st.lists(st.tuples(st.lists(NAMES, max_size=3), st.sampled_from(['1.png', '2.png', '.3.png', 'link']), st.lists(NAMES, max_size=3)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_any_tree_with_links_is_read_as_it_is_hashed(steps):
    "Folders, pictures and links to folders above, below, beside and outside, as they come"
    with tempfile.TemporaryDirectory() as d:
        top = Path(d)/'in'; top.mkdir(); (Path(d)/'out'/'a').mkdir(parents=True); (Path(d)/'out'/'a'/'9.png').touch()
        for folders, name, target in steps:
            folder = top.joinpath(*folders)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if name == 'link': (folder/'c').symlink_to(Path(d)/'out' if not target else top.joinpath(*target))
                else: (folder/name).touch()
            except OSError: continue # A link is there already, or leads nowhere
        try: listed = {str(p) for p in folder_files(top).values()}
        except UserError: return
        for name in listed: # Whoever begins in a subfolder finds nothing that the whole does not hold
            sub = top/Path(name).relative_to(top).parts[0]
            if sub.is_dir(): assert {str(p) for p in folder_files(sub).values()} <= listed
        try: table = read_folder(top)
        except UserError: return
        assert set(table.image_path) <= listed and not [p for p in table.image_path if '/.' in p.removeprefix(d)]


WATCH = """
import json, os, sys
opened = set()
def hook(event, given):
    if event == 'open' and isinstance(given[0], (str, bytes, os.PathLike)): opened.add(os.path.realpath(os.fsdecode(given[0])))
sys.addaudithook(hook)
import cv2, h5py # They open files in C, where no audit hook looks
File, imread = h5py.File.__init__, cv2.imread
def init(self, name, *given, **more):
    if isinstance(name, (str, os.PathLike)): opened.add(os.path.realpath(name))
    return File(self, name, *given, **more)
h5py.File.__init__ = init
cv2.imread = lambda name, *given: (opened.add(os.path.realpath(name)), imread(name, *given))[1]
from inspect_lib.core.paths import workspace
from inspect_lib.run.executor import run_record
from inspect_lib.run.params import check_params, declared
from inspect_lib.run.shell import run_in_process
from inspect_lib.run.work import new_record, pipeline_notebook
pipeline, given = sys.argv[1], json.loads(sys.argv[2])
ws = workspace()
declaration = declared(pipeline_notebook(pipeline, ws))
record = new_record(pipeline, 'x', check_params(given, declaration), ws)
opened.clear() # What was opened in order to hash it
made = []
def execute(*given): run_in_process(*given); made.extend(opened)
run_record(record, ws, execute)
print('OPENED' + json.dumps(sorted(made)))
"""


def opened_by(workspace: Path, pipeline: str, **params) -> set[Path]:
    "Every file that a real run opened, by Python, h5py or OpenCV, once its key was known"
    (workspace/'nbs').mkdir(exist_ok=True)
    shutil.copytree(ROOT/'nbs'/'pipelines', workspace/'nbs'/'pipelines', dirs_exist_ok=True)
    env = os.environ | dict(INSPECT_LIB_ROOT=str(workspace), TQDM_DISABLE='1')
    done = subprocess.run([sys.executable, '-c', WATCH, pipeline, json.dumps(params)], env=env, cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return {Path(p) for p in json.loads(done.stdout.rpartition('OPENED')[2])}


def demand(opened: set[Path], folders: list[Path], inputs: list[Path]):
    "Every opened file of these folders belongs to one of the inputs, and every input was opened"
    listed = [{p.resolve() for p in input_files(place).values()} for place in inputs]
    inside = {p for p in opened if any(p.is_relative_to(f.resolve()) for f in folders) and p.is_file()}
    assert inside <= set().union(*listed), sorted(inside - set().union(*listed))[:5]
    assert all(inside & files for files in listed)


def test_a_similarity_search_opens_only_what_its_key_covers(workspace):
    "References through linked class folders, queries by an index file"
    shutil.copytree(SMOKE/'references', workspace/'photos'); shutil.copytree(SMOKE/'queries', workspace/'data'/'queries')
    (workspace/'data'/'linked').mkdir()
    for folder in (workspace/'photos').iterdir():
        if folder.is_dir(): (workspace/'data'/'linked'/folder.name).symlink_to(folder)
    pictures = [p for p in folder_files(workspace/'data'/'queries').values() if p.suffix != '.csv']
    rows = [f'{p.relative_to(workspace/"data"/"queries").as_posix()},{p.parent.name}' for p in pictures]
    (workspace/'data'/'queries'/'index.csv').write_text('\n'.join(['image,label', *rows]))
    shutil.copytree(workspace/'photos'/'present', workspace/'photos'/'present'/'.thumbs')
    opened = opened_by(workspace, '30_similarity', references='data/linked', queries='data/queries/index.csv', encoder='hog-colour', k=3, false_accept_rate=.3)
    demand(opened, [workspace/'photos', workspace/'data'], [workspace/'data'/'linked', workspace/'data'/'queries'/'index.csv'])


def test_an_anomaly_detector_opens_only_what_its_key_covers(workspace):
    "References as MVTec AD through a link, queries with their masks by an index file"
    shutil.copytree(SMOKE/'anomaly', workspace/'photos'); (workspace/'data'/'line').symlink_to(workspace/'photos')
    shutil.copytree(SMOKE/'anomaly', workspace/'data'/'own')
    table, home = read_folder(workspace/'data'/'own'), workspace/'data'/'own'
    short = lambda p: Path(p).relative_to(home).as_posix() if p else ''
    rows = [f'{short(r.image_path)},{r.gt_label},{r.split},{short(r.gt_mask_path)}' for r in table.itertuples()]
    (home/'index.csv').write_text('\n'.join(['image,label,split,mask', *rows]))
    opened = opened_by(workspace, '34_anomaly', references='data/line', queries='data/own/index.csv', encoder='hog-colour')
    demand(opened, [workspace/'photos', workspace/'data'], [workspace/'data'/'line', workspace/'data'/'own'/'index.csv'])


ONCE = """
import json, sys
from inspect_lib.core.error import UserError
from inspect_lib.core.paths import workspace
from inspect_lib.run.executor import run_record
from inspect_lib.run.params import check_params, declared
from inspect_lib.run.shell import run_in_process
from inspect_lib.run.work import new_record, pipeline_notebook
pipeline, given = sys.argv[1], json.loads(sys.argv[2])
ws = workspace()
record = new_record(pipeline, 'a', check_params(given, declared(pipeline_notebook(pipeline, ws))), ws)
try: run_record(record, ws, run_in_process)
except UserError as error: sys.exit(str(error))
"""


def run_once(workspace: Path, pipeline: str, **params) -> subprocess.CompletedProcess:
    "A run in a process of its own, as a sweep's runner makes it: no kernel to wait for"
    env = os.environ | dict(INSPECT_LIB_ROOT=str(workspace), TQDM_DISABLE='1')
    return subprocess.run([sys.executable, '-c', ONCE, pipeline, json.dumps(params)], env=env, cwd=workspace, capture_output=True, text=True)


EDITING = """from pathlib import Path
from inspect_lib.core.paths import workspace
from inspect_lib.run.work import begin, finish
run, root = begin('40_toy', globals()), workspace().root
{edit}
from firm.shape import VALUE
(run.folder/'made.txt').write_text(str(VALUE))
finish(run, dict(value=VALUE), f'The value is {{VALUE}}.', '<!doctype html><title>toy</title>')"""
DECLARED = "source: 'input' = ''  # Pictures\nencoder: str = ''  # Weights of one's own\nscene: 'module' = 'firm.shape'  # A plug-in\nslow: int = 0  # Unused"


def toy(workspace: Path, edit: str = '') -> Path:
    "A pipeline whose own first act is an edit, as somebody else might make one in these minutes"
    (workspace/'firm').mkdir(); (workspace/'firm'/'__init__.py').touch(); (workspace/'firm'/'shape.py').write_text('VALUE = 1\n')
    (workspace/'data'/'x').mkdir(); (workspace/'data'/'x'/'picture').write_text('1')
    add_pipeline(workspace, '40_toy', DECLARED, EDITING.format(edit=edit))
    (workspace/'params'/'40_toy').mkdir(); (workspace/'params'/'40_toy'/'a.yaml').write_text('source: data/x\nencoder: data/x\n')
    return workspace


EDITS = {'code': ("(root/'firm'/'shape.py').write_text('VALUE = 22\\n')", 'function firm.shape.VALUE changed'),
         'broken code': ("(root/'firm'/'more.py').write_text('x = 1\\n'); (root/'firm'/'shape.py').write_text('VALUE = 3 # \\nfrom firm.more import x\\n')", 'changed'),
         'picture': ("(root/'data'/'x'/'picture').write_text('22')", 'input source changed'),
         'new picture': ("(root/'data'/'x'/'more').write_text('22')", 'input source changed'),
         'gone': ("import shutil; shutil.rmtree(root/'data'/'x')", 'does not exist'),
         'lock': ("(root/'requirements.lock').write_text('numpy==0\\n')", 'the lock file changed')}


@pytest.mark.parametrize('name', [name if name in ('code', 'new picture', 'lock') else pytest.param(name, marks=pytest.mark.slow) for name in EDITS])
def test_what_changes_while_a_run_is_made_is_not_sealed(workspace, cli, name):
    edit, why = EDITS[name]
    once = f"if not (root/'edited').exists():\n    (root/'edited').touch(); {edit}"
    toy(workspace, once)
    done = cli('run', '40_toy', 'a')
    assert done.returncode and 'changed while it ran' in done.stderr and why in done.stderr and 'Traceback' not in done.stderr, done.stderr
    ws = open_workspace(workspace)
    kept, = list_runs(ws)
    assert kept['state'] == 'failed' and kept['error'] and (ws.reports/kept['path']/'made.txt').is_file()


@pytest.mark.parametrize('executor', ['in-process', pytest.param('kernel', marks=pytest.mark.slow), pytest.param('sweep', marks=pytest.mark.slow)])
def test_restored_code_does_not_take_up_what_other_code_made(workspace, cli, executor):
    "In a process of its own, in a kernel, and in a sweep's runner"
    toy(workspace, "if not (root/'edited').exists():\n    (root/'edited').touch(); (root/'firm'/'shape.py').write_text('VALUE = 22\\n')")
    if executor == 'sweep':
        (workspace/'params'/'sweeps').mkdir()
        (workspace/'params'/'sweeps'/'s.yaml').write_text('workers: 1\nexecutor: in-process\nsteps:\n  s: {notebook: 40_toy, params: {source: data/x}, grid: {slow: [1]}}\n'
                                                          'report: {step: s, metric: value, axes: [slow]}\n')
    make = {'in-process': lambda: run_once(workspace, '40_toy', source='data/x', encoder='data/x'),
            'kernel': lambda: cli('run', '40_toy', 'a'), 'sweep': lambda: cli('sweep', 's')}[executor]
    first = make()
    assert first.returncode and 'changed while it ran' in first.stderr + first.stdout, first.stderr + first.stdout
    ws = open_workspace(workspace)
    failed, = list_runs(ws)
    assert failed['state'] == 'failed'
    (workspace/'firm'/'shape.py').write_text('VALUE = 1\n')
    again = make()
    assert again.returncode == 0, again.stderr + again.stdout
    done, = [r for r in list_runs(ws) if r['state'] == 'done']
    assert done['key'] == failed['key'] and verify_run(ws.reports/done['path'])['metrics'] == {'value': 1}
    assert len(list(ws.reports.glob(f'40_toy/*/damaged-{done["key"]}-*'))) == 1 # What the other code made is kept aside


def look(workspace: Path, **given) -> dict:
    ws = open_workspace(workspace)
    defaults = {name: p.default for name, p in declared(pipeline_notebook('40_toy', ws)).items()}
    return identify('40_toy', defaults | given, ws)


def test_a_folder_that_a_plain_parameter_names_is_in_the_key(workspace):
    "An encoder of one's own is a text like any other name"
    toy(workspace)
    before, named = look(workspace, encoder='data/x'), look(workspace, encoder='hog-colour')
    (workspace/'data'/'x'/'picture').write_text('22')
    assert look(workspace, encoder='data/x')['key'] != before['key'] and look(workspace, encoder='hog-colour') == named
    assert list(before['identity']['files']) == ['data/x'] and 'files' not in named['identity']


def test_what_a_step_can_read_of_an_earlier_run_is_in_its_key(workspace):
    "Its figures, its parameters; not its times"
    toy(workspace)
    add_pipeline(workspace, '30_first', 'n: int = 1  # A number', """from inspect_lib.run.work import begin, finish
run = begin('30_first', globals())
finish(run, dict(value=n % 3), 'A number.', '<!doctype html><title>first</title>')""")
    keys = {}
    for n in (1, 2, 4):
        assert run_once(workspace, '30_first', n=n).returncode == 0
        keys[n] = look(workspace, source='reports/30_first/a')['key']
    assert len(set(keys.values())) == 3
    ws = open_workspace(workspace)
    run = max((r for r in list_runs(ws) if r['pipeline'] == '30_first'), key=lambda r: r['params']['n'])
    shutil.rmtree(ws.reports/run['path'])
    assert run_once(workspace, '30_first', n=4).returncode == 0 # Made again, at another time
    assert look(workspace, source=f"reports/{run['path']}")['key'] == keys[4]


def test_verify_notices_a_run_that_is_not_what_its_place_says(workspace, cli):
    toy(workspace)
    assert run_once(workspace, '40_toy', source='data/x', encoder='data/x').returncode == 0
    ws = open_workspace(workspace)
    run, = list_runs(ws)
    place = ws.reports/run['path']
    def noticed(path: Path, why: str, told: bool = False):
        said = cli('verify') if told else None
        assert said is None or said.returncode == 1 and 'DAMAGED' in said.stdout and why in said.stdout, said
        with pytest.raises(UserError, match=why.replace('(', '.')): verify_run(path)
    def copied(to: Path) -> Path:
        to.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copytree(place, to)
    for to, why in ((place.with_name('0'*16), "whose key is"), (ws.reports/'40_toy'/'b'/place.name, "whose name is 'a', not 'b'"),
                    (ws.reports/'50_other'/'a'/place.name, "whose pipeline is '40_toy', not '50_other'")):
        noticed(copied(to), why, told=True); shutil.rmtree(to)
    record = json.loads((place/'run.json').read_text())
    from inspect_lib.run.store import sealed
    for change, why in ((dict(headline='All is well.'), 'the headline is not what'), (dict(metrics=dict(value=9)), 'the metrics is not what'),
                        (dict(params=record['params'] | dict(slow=7)), 'names other parameters'),
                        (dict(identity=record['identity'] | dict(lock='0'*64)), 'the key does not follow'),
                        (dict(key='0'*16), 'whose key is')):
        (place/'run.json').write_text(json.dumps(sealed(record | change))); noticed(place, why)
    (place/'run.json').write_text(json.dumps(record))
    (place/'.hidden').touch(); noticed(place, '.hidden is a hidden file'); (place/'.hidden').unlink()
    (place/'.x').mkdir(); (place/'.x'/'y').touch(); noticed(place, '.x/y is a hidden file'); shutil.rmtree(place/'.x')
    (place/'made.txt').rename(workspace/'made.txt'); (place/'made.txt').symlink_to(workspace/'made.txt'); noticed(place, 'made.txt is a link')
    (place/'made.txt').unlink(); (workspace/'made.txt').rename(place/'made.txt')
    assert cli('verify').returncode == 0


def test_a_run_under_a_second_name_says_so(workspace, cli):
    toy(workspace)
    shutil.copy(workspace/'params'/'40_toy'/'a.yaml', workspace/'params'/'40_toy'/'b.yaml')
    assert cli('run', '40_toy', 'a').returncode == 0 and 'Already done' in cli('run', '40_toy', 'b').stdout
    assert cli('verify').returncode == 0 and {r['name'] for r in list_runs(open_workspace(workspace))} == {'a', 'b'}
