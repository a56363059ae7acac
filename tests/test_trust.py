"Data never becomes code: what a parameter names is the library's, or a file the machine's owner has put into the plug-in folder."
import pytest

from conftest import add_pipeline
from inspect_lib.core.error import UserError
from inspect_lib.core.plugin import import_named

EVIL = "from pathlib import Path\nPath(__file__).with_name('executed').write_text('x')\ncheck = draw = build = apply = print\n"
PLACES = ['data/evil.py', 'data/set/evil.py', 'reports/sweeps/x/evil.py', 'reports/40_toy/a/0123456789abcdef/evil.py', 'params/evil.py',
          '.cache/evil.py', 'evil.py', 'sweeps/x/evil.py']


def names_of(place): # Every dotted way to a file
    parts = place.removesuffix('.py').split('/')
    return {'.'.join(parts[n:]) for n in range(len(parts))}


@pytest.mark.parametrize('place', PLACES)
def test_a_parameter_names_no_code_among_data(workspace, monkeypatch, place):
    (file := workspace/place).parent.mkdir(parents=True, exist_ok=True)
    file.write_text(EVIL)
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    monkeypatch.syspath_prepend(str(workspace))
    monkeypatch.chdir(workspace)
    monkeypatch.syspath_prepend(str(file.parent)) # Even where Python itself would find it
    for name in names_of(place) | {'antigravity', 'os.path_', 'inspect_lib.no_such', '..evil', 'plugins.evil'}:
        with pytest.raises((UserError, ModuleNotFoundError)): import_named(name)
    assert not file.with_name('executed').exists()


@pytest.mark.parametrize('bad', ['', '.', 'data', 'reports', 'reports/code', 'data/../data/x', '..'])
def test_the_plugin_folder_lies_apart_from_data(workspace, cli, bad):
    with open(workspace/'settings.ini', 'a') as ini: ini.write(f'plugins = {bad}\n')
    done = cli('list')
    assert done.returncode == 1 and "Setting 'plugins' must name a folder of its own" in done.stderr


def test_a_run_with_code_from_data_stops_before_it(workspace, cli):
    "As a record of an archive would ask for it: in a kernel whose working folder is the workspace"
    add_pipeline(workspace, '40_toy', "use_case: 'module' = 'inspect_lib.render.station'  # Any",
                 'from inspect_lib.run.work import begin, finish\nfrom inspect_lib.render.usecase import find_use_case\n'
                 "run = begin('40_toy', globals())\nfind_use_case(use_case)\nfinish(run, {}, 'x', '<!doctype html>')")
    (evil := workspace/'reports'/'sweeps'/'x'/'evil.py').parent.mkdir(parents=True); evil.write_text(EVIL)
    (workspace/'params'/'40_toy').mkdir(); (workspace/'params'/'40_toy'/'a.yaml').write_text('use_case: reports.sweeps.x.evil\n')
    done = cli('run', '40_toy', 'a')
    assert done.returncode == 1 and 'code of your own is found there only' in done.stderr
    assert not evil.with_name('executed').exists()
    (own := workspace/'plugins'/'mine'/'cup.py').parent.mkdir(parents=True); own.write_text(EVIL)
    done = cli('run', '40_toy', 'a', '-p', 'use_case=mine.cup')
    assert done.returncode == 0 and own.with_name('executed').exists(), done.stderr
