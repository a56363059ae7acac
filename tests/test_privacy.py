"What a run leaves names no machine and no user, wherever it was made; what goes to people outside is searched."
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from markupsafe import Markup

from conftest import SETTINGS, add_pipeline, piece
from inspect_lib.core.image import write_image
from inspect_lib.report.document import document

BODY = """import logging, sys
from pathlib import Path
from inspect_lib.core.paths import portable
from inspect_lib.data.folder import read_folder
from inspect_lib.run.work import begin, finish
run = begin('40_toy', globals())
table = read_folder(run.inputs['pictures'])
print('read', run.inputs['pictures'], 'in', Path.cwd(), 'of', Path.home())
print('told', run.inputs['pictures'], file=sys.stderr)
if fail: raise ValueError(f'no {run.folder}')
table.assign(image_path=[portable(p) for p in table.image_path]).to_csv(run.folder/'test.csv', index=False)
finish(run, dict(n=len(table)), 'Made.', page)"""
PARAMETERS = "pictures: 'input' = 'data/line'  # Any\nfail: bool = False  # Any\npage: str = '<p>Fine.</p>'  # Any"


def make(root):
    add_pipeline(root, '40_toy', PARAMETERS, BODY)
    for i in range(4): write_image(root/'data'/'line'/('IO', 'NIO')[i % 2]/f'{i}.png', piece(i, False)[0])
    (root/'params'/'40_toy').mkdir(parents=True, exist_ok=True); (root/'params'/'40_toy'/'a.yaml').write_text('')
    return root


def run_of(root, pattern='[0-9a-f]*'): return next((root/'reports'/'40_toy'/'a').glob(pattern))


@pytest.mark.parametrize('fail', ['false', 'true'])
def test_no_file_of_a_run_names_the_machine(workspace, cli, fail):
    make(workspace)
    assert cli('run', '40_toy', 'a', '-p', f'fail={fail}').returncode == (fail == 'true')
    folder = run_of(workspace, 'failed-*' if fail == 'true' else '[0-9a-f]*')
    files = [p for p in folder.rglob('*') if p.is_file()]
    assert {'notebook.ipynb', 'log.txt', 'run.json'} <= {p.name for p in files}
    for file in files:
        for name in (workspace, Path.home()): assert f'{name}/' not in file.read_text(), (file.name, name)
    assert 'data/line' in (folder/'notebook.ipynb').read_text()


def test_made_again_on_another_path_it_is_equal(workspace, here, tmp_path_factory):
    make(workspace)
    (workspace/'params'/'40_toy'/'a.yaml').write_text(f"page: {json.dumps(document('Toy', Markup('<p>Fine.</p>')))}\n")
    assert here('run', '40_toy', 'a').returncode == 0
    key = run_of(workspace).name
    assert here('export', 'a.tar.gz', '--run', key).returncode == 0
    other = tmp_path_factory.mktemp('a much longer name')/'elsewhere'; other.mkdir()
    (other/'settings.ini').write_text(SETTINGS); shutil.copy(workspace/'requirements.lock', other)
    there = dict(INSPECT_LIB_ROOT=str(make(other)))
    assert here('import', str(workspace/'a.tar.gz'), **there).returncode == 0
    again = here('reproduce', key, '--trust', **there)
    assert again.returncode == 0 and 'differs' not in again.stdout and 'Not the same code' not in again.stdout, again.stdout + again.stderr


def test_pages_for_people_outside(workspace, here, tmp_path_factory):
    make(workspace)
    assert here('run', '40_toy', 'a').returncode == 0
    good = run_of(workspace).name
    assert here('export', 'pages.zip', '--for-stakeholders', '--run', good).returncode == 0
    with zipfile.ZipFile(workspace/'pages.zip') as packed: assert packed.namelist() == [f'40_toy/a/{good}/report.html', 'index.html']
    secret = 'correct-horse-battery'
    for text, what in ((str(workspace), "the workspace's folder"), ('/home/erika/x', 'a home folder'), (secret, 'environment variable MY_TOKEN'),
                       ('ghp_' + 'a'*36, 'access token')):
        assert here('run', '40_toy', 'a', '-p', f'page={json.dumps(text)}', MY_TOKEN=secret).returncode == 0
        key = next(p.name for p in (workspace/'reports'/'40_toy'/'a').glob('[0-9a-f]*') if text in (p/'report.html').read_text())
        done = here('export', 'more.zip', '--for-stakeholders', '--run', good, '--run', key, MY_TOKEN=secret)
        assert done.returncode == 1 and what in done.stderr and secret not in done.stderr, done.stderr
    assert not (workspace/'more.zip').exists()
