"What README promises a newcomer: its Python works in any folder, its commands, files and targets are there."
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import inspect_lib
from conftest import BIN, ROOT
from inspect_lib.core.seed import generator
from inspect_lib.data.folder import read_folder
from inspect_lib.data.split import pick_references
from inspect_lib.judge.classify import score_classes
from inspect_lib.net.zoo import load_encoder
from inspect_lib.report.classification import macro_f1
from inspect_lib.report.words import metric_in_words

TEXT = (ROOT/'README.md').read_text()
BLOCKS = {language: re.findall(rf'^```{language}\n(.*?)^```', TEXT, re.M | re.S) for language in ('python', 'sh')}
SHOWN = [*re.findall(r'`([^`\n]+)`', re.sub(r'^```.*?^```', '', TEXT, flags=re.M | re.S)), *''.join(BLOCKS['sh']).splitlines()]
COMMANDS = sorted({re.sub(r'\s+#.*', '', c) for c in SHOWN if c.startswith('inspect-lib ')})
OURS = ('door', '<pipeline>') # Names that a reader fills in


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    "A folder without a workspace, with small pictures in two class folders"
    for place in ('references', 'queries'):
        for label, name in (('present', 'IO'), ('missing', 'NIO')):
            (tmp_path/'data'/'door'/name).mkdir(parents=True, exist_ok=True)
            for p in (ROOT/'data'/'smoke'/place/label).glob('*.png'): shutil.copy(p, tmp_path/'data'/'door'/name/f'{place}_{p.name}')
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith('INSPECT_LIB_')]: monkeypatch.delenv(name)
    return tmp_path


def answer_by_hand(folder) -> tuple[pd.DataFrame, list[str]]:
    "The five nearest references of each picture, counted in plain NumPy"
    rng, encoder = generator(0, 'door'), load_encoder('inspect-tiny')
    train, test = pick_references(read_folder(folder), 5, rng)
    unit = lambda table: (z := encoder.encode_files(table.image_path))/np.linalg.norm(z, axis=1, keepdims=True)
    nearest = np.argsort(-unit(test) @ unit(train).T, axis=1, kind='stable')[:, :5]
    return test, [max(('IO', 'NIO'), key=list(row).count) for row in train.gt_label.to_numpy(object)[nearest]]


def test_plain_python_writes_a_report_outside_any_workspace(nowhere):
    block, = BLOCKS['python']
    done = subprocess.run([sys.executable, '-c', block], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)), timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in nowhere.iterdir()) == ['data', 'door.html'], 'it leaves the page, and nothing else'
    page = (nowhere/'door.html').read_text().replace('\N{NO-BREAK SPACE}', ' ')
    test, answers = answer_by_hand('data/door')
    f1 = macro_f1(score_classes(test.gt_label, answers, test.group, generator(0, 'intervals')))
    value = metric_in_words(f1).partition(' (')[0]
    assert f'On 38 real pictures the macro F1 is {value}' in page and len(test) == 38
    assert 'class="verdict measured"' in page and 'no requirement was stated' in page, 'nobody asked for anything, so nothing is good'
    right = int((test.gt_label == answers).sum())
    shown = min(right, 8) + min(38 - right, 8)
    assert page.count('of the votes') == shown and page.count('data:image/jpeg') == 6*shown, 'each case stands beside its five references'


def test_names_at_the_top_are_there_and_importing_is_cheap():
    for name in inspect_lib.__all__: assert getattr(inspect_lib, name).__name__ == name and name in dir(inspect_lib)
    with pytest.raises(AttributeError, match="no attribute 'read_fodler'"): inspect_lib.read_fodler
    code = "import sys, inspect_lib; print([m for m in ('torch', 'numpy', 'pandas', 'PIL') if m in sys.modules], 'classify' in dir(inspect_lib))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.stdout == '[] True\n', done.stderr


def test_encoder_outside_any_workspace(nowhere): assert inspect_lib.load_encoder('inspect-tiny').identity['name'] == 'inspect-tiny'


def test_first_picture_and_first_code_come_early():
    lines = TEXT.splitlines()
    assert min(i for i, line in enumerate(lines) if line.startswith('![')) < 10
    assert min(i for i, line in enumerate(lines) if line.startswith('```')) < 20


def test_readme_shows_commands(): assert len(COMMANDS) > 12, COMMANDS


@pytest.mark.parametrize('command', COMMANDS)
def test_commands_name_what_there_is(command):
    _, verb, *words = command.split()
    listed = subprocess.run([BIN/'inspect-lib', verb, '--help'], capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    for option in [w for w in words if w.startswith('--')]: assert option in listed.stdout, f'inspect-lib {verb} has no {option}'
    if words and verb in ('run', 'params', 'inspect') and words[0] not in OURS:
        assert (ROOT/'nbs'/'pipelines'/f"{words[0].removeprefix('reports/').split('/')[0]}.ipynb").is_file(), words[0]
    if verb == 'run' and words[1] not in OURS: assert (ROOT/'params'/words[0]/f'{words[1]}.yaml').is_file(), command
    if verb == 'sweep' and words: assert (ROOT/'params'/'sweeps'/f'{words[0]}.yaml').is_file(), command


@pytest.mark.parametrize('command', ['inspect-lib --help', 'inspect-lib list', 'inspect-lib params 30_similarity'])
def test_cheap_commands_run(command):
    done = subprocess.run([BIN/'inspect-lib', *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    if 'params' in command: assert "encoder: str = 'inspect-small'" in done.stdout


def test_targets_of_make_are_there():
    targets = set(re.findall(r'^([a-z]+):', (ROOT/'Makefile').read_text(), re.M))
    named = set(re.findall(r'(?:`|^)make ([a-z]+)', TEXT, re.M))
    assert {'demo', 'test', 'lab', 'check', 'bench'} <= named <= targets


def test_links_and_files_are_there():
    links = [link for link in re.findall(r'\]\(([^)]+)\)', TEXT) if '://' not in link]
    files = [s for s in SHOWN if re.fullmatch(r'(nbs|params|inspect_lib|data/smoke)/[\w/.-]*|[A-Z]+\.md|settings\.ini', s)]
    copied = re.findall(r'^cp (\S+)', ''.join(BLOCKS['sh']), re.M)
    for path in (*links, *files, *copied): assert (ROOT/path).exists(), path
