"""The gates of `make check`: fast, for every commit."""
import ast
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest

from inspect_lib.core.paths import workspace
from inspect_lib.run.params import RENAMED, check_params, declared, read_params
from inspect_lib.run.template import OWN, template
from inspect_lib.sweep.plan import read_sweep

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# From the ground up; README names the same list. A floor imports from those below it, and from itself without circles
FLOORS = ('core', 'data', 'formats', 'synth', 'acquire', 'render', 'guide', 'net', 'model', 'generate', 'deploy', 'judge',
          'explain', 'label', 'report', 'serve', 'app', 'run', 'sweep', 'cli')
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
PIPELINES = sorted((ROOT/'nbs'/'pipelines').glob('[!_]*.ipynb'))
# Larger than a notebook should be: they show noise, which no PNG makes small. A name goes when its notebook shows less
HEAVY = {'00_noise', '01_surface', '02_defect', '04_piece', '06_glyph', '07_stamp', '08_line', '12_pool', '04a_ground',
         '04_detector', '05_pix2pix', '00_synthesis', '20_stamp', '22_compose', '30_similarity', '32_siamese', '40_mix'}

# Words given up for the field's terms: none of them names a function, a class, a field or a parameter again
RETIRED = set("""asked rest teach taught lesson lessons cost costs learner pupil examine examination marks painter painters
    judge crew hire dismiss let_go farm shoot harvest stock steer painted reach reached forecast account variant variants course
    desk book carry_out looks least thin each said most mc cb held_back ages likeness fronts oldest held_share
    n_judged hard_course synthetic_course known_split judged_share picture_kind
    known told pace rules found some here thing things way ways gate smallest utils helpers misc common manager""".split())
# Modules with a public function, class or method without a docstring. A name goes when all of its have one
UNDOCUMENTED = {'deploy.exported', 'model.contract', 'model.detector', 'model.embedding', 'model.inspector', 'model.patchcore', 'model.pix2pix',
                'model.pretrain', 'model.reading', 'model.siamese', 'model.similarity', 'net.checkpoint', 'net.device', 'net.watch'}


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "The notebooks and the library, exported and cleaned again"
    copy = tmp_path_factory.mktemp('copy')
    ignore = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for name in ('nbs', 'inspect_lib'): shutil.copytree(ROOT/name, copy/name, ignore=ignore)
    shutil.copy(ROOT/'pyproject.toml', copy); shutil.copy(ROOT/'README.md', copy)
    for command in ('nbdev-export', 'nbdev-clean'):
        subprocess.run([BIN/command], cwd=copy, check=True, capture_output=True, timeout=120)
    return copy


def differing(a: Path, b: Path) -> list[str]:
    ignored = {'__pycache__', '.ipynb_checkpoints'}
    names = {p.relative_to(r).as_posix() for r in (a, b) for p in r.rglob('*')
             if p.is_file() and not ignored & set(p.parts)}
    read = lambda path: path.read_bytes() if path.is_file() else None
    return sorted(n for n in names if read(a/n) is None or read(a/n) != read(b/n))


def test_export_changes_nothing(copy): assert differing(ROOT/'inspect_lib', copy/'inspect_lib') == []
def test_clean_changes_nothing(copy): assert differing(ROOT/'nbs', copy/'nbs') == []


def test_parameters_tag_survives_a_clean(copy):
    for path in PIPELINES: assert declared(copy/path.relative_to(ROOT)) == declared(path)


def module_of(path: Path) -> str:
    "`net.train` for inspect_lib/net/train.py, `cli` for inspect_lib/cli.py"
    return '.'.join(path.relative_to(ROOT/'inspect_lib').with_suffix('').parts)


MODULES = {module_of(p): p for p in sorted((ROOT/'inspect_lib').rglob('*.py')) if p.stem[0] != '_'}


def imports(name: str) -> set[str]:
    "Modules of the package that a module imports, also inside its functions; nbdev has made most imports relative"
    here, found = ['inspect_lib', *name.split('.')[:-1]], set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if not isinstance(node, ast.ImportFrom): continue
        above = here[:len(here) - node.level + 1] if node.level else []
        module = '.'.join([*above, *(node.module or '').split('.')]).strip('.')
        for target in (module, *(f'{module}.{alias.name}' for alias in node.names)):
            if target.removeprefix('inspect_lib.') in MODULES: found.add(target.removeprefix('inspect_lib.'))
    return found - {name}


@pytest.mark.parametrize('name', MODULES)
def test_imports_go_downwards_only(name):
    floor = FLOORS.index(name.split('.')[0])
    assert not {other for other in imports(name) if FLOORS.index(other.split('.')[0]) > floor}


def test_no_module_imports_itself_by_way_of_others():
    TopologicalSorter({name: imports(name) for name in MODULES}).prepare() # Raises CycleError, which names the circle


@pytest.mark.parametrize('name', [name for name, path in MODULES.items() if re.search(r'^def main\(', path.read_text(), re.M)])
def test_a_module_with_a_main_calls_it(name):
    assert re.search(r"^if __name__ == '__main__' .*\bmain\(", MODULES[name].read_text(), re.M), f'python -m inspect_lib.{name} would do nothing'


def test_every_module_stands_on_a_floor_and_readme_names_the_floors():
    assert {name.split('.')[0] for name in MODULES} == set(FLOORS)
    table = (ROOT/'README.md').read_text().split('| floor |')[1].split('\n\n')[0]
    assert re.findall(r'`([a-z]+)`', ''.join(line.split('|')[1] for line in table.splitlines()[2:])) == list(FLOORS)


def definitions(name: str) -> list[ast.AST]:
    "Public functions and classes of a module, and their public methods; what `torch` calls is documented there"
    tree = ast.parse(MODULES[name].read_text())
    nodes = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] != '_']
    methods = [m for n in nodes if isinstance(n, ast.ClassDef) for m in n.body if isinstance(m, ast.FunctionDef)]
    return nodes + [m for m in methods if m.name[0] != '_' and m.name not in ('forward', 'backward', 'load_state_dict')]


def names_in(tree: ast.AST) -> set[str]:
    "What functions, classes, their fields and parameters are called"
    nodes = list(ast.walk(tree))
    fields = {f.target.id for n in nodes if isinstance(n, ast.ClassDef) for f in n.body if isinstance(f, ast.AnnAssign)}
    return fields | {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))} | {n.arg for n in nodes if isinstance(n, ast.arg)}


@pytest.mark.parametrize('name', MODULES)
def test_no_retired_word_comes_back(name):
    assert not {word for word in names_in(ast.parse(MODULES[name].read_text())) if word.lower() in RETIRED}


@pytest.mark.parametrize('path', PIPELINES, ids=lambda p: p.stem)
def test_no_parameter_of_a_pipeline_is_a_retired_word(path): assert not RETIRED & declared(path).keys()


@pytest.mark.parametrize('name', MODULES)
def test_modules_functions_and_classes_are_documented(name):
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))
    assert name in UNDOCUMENTED or not [n.name for n in definitions(name) if not ast.get_docstring(n)]


@pytest.mark.parametrize('path', sorted(p for p in (ROOT/'params').glob('*/*.yaml') if p.parent.name != 'sweeps'), ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_params_fit_their_notebook(path):
    check_params(read_params(path), declared(ROOT/'nbs'/'pipelines'/f'{path.parent.name}.ipynb'), path, RENAMED.get(path.parent.name))


@pytest.mark.parametrize('pipeline', RENAMED)
def test_renamed_parameters_have_their_new_names(pipeline):
    known = declared(ROOT/'nbs'/'pipelines'/f'{pipeline}.ipynb')
    for old, new in RENAMED[pipeline].items(): assert (old in known) != (new in known), f'{pipeline}: {old} -> {new}'
    assert not RENAMED[pipeline].keys() & set(RENAMED[pipeline].values()), 'a new name is never an old one'


@pytest.mark.parametrize('pipeline', OWN)
def test_templates_say_what_the_parameters_cells_say(pipeline):
    text = template(pipeline, declared(ROOT/'nbs'/'pipelines'/f'{pipeline}.ipynb'))
    assert (ROOT/'params'/pipeline/'own.yaml').read_text() == text, 'make templates writes them again'


@pytest.mark.parametrize('name', sorted(p.stem for p in (ROOT/'params'/'sweeps').glob('*.yaml')))
def test_sweeps_can_be_planned(name):
    assert read_sweep(name, workspace()).steps


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_kept_outputs_name_no_place_and_stay_small(path):
    outputs = [o for c in nbformat.read(path, 4).cells if c.cell_type == 'code' for o in c.outputs]
    noise = [o for o in outputs if o.get('name') == 'stderr']
    assert not noise, 'warnings and progress bars do not belong into kept outputs'
    assert not re.search(r'/tmp/|/home/|/root/|' + re.escape(str(ROOT)), str(outputs))
    assert path.stat().st_size < (1_000_000 if path.stem in HEAVY else 300_000), 'show smaller or fewer pictures'


# Names that stand for whatever a reader adds
WILDCARDS = ('NN_name', 'NN_verb', 'NN_noun', 'NN_pipeline', '<floor>', '<name>', '/name.yaml')


def named_in(text: str) -> tuple[set[str], set[str]]:
    "Paths, and modules of the library, in backticks"
    words = {word for span in re.findall('`([^`\n]+)`', text) for word in re.split(r'[\s()]+', span)}
    paths = {w for w in words if re.fullmatch(r'(nbs|tests|params|inspect_lib|tools|benchmarks)/\S*', w) and not any(x in w for x in WILDCARDS)}
    modules = {w for w in words if re.fullmatch('|'.join(FLOORS[:-1]), w.partition('.')[0]) and re.fullmatch(r'[a-z_]+\.[a-z_0-9]+', w)}
    return paths, modules - {'floor.noun'}


def test_paths_modules_and_names_in_contributing_are_there():
    text = (ROOT/'CONTRIBUTING.md').read_text()
    paths, modules = named_in(text)
    assert len(paths) >= 8 and len(modules) >= 5, 'the gate reads what it is to check'
    for path in paths: assert (ROOT/path).exists(), f'CONTRIBUTING.md names {path}, which does not exist.'
    for module in modules: assert module in MODULES, f'CONTRIBUTING.md names {module}, which is no module.'
    library = ' '.join(path.read_text() for path in MODULES.values())
    for name in set(re.findall(r'`([A-Z]{4,}(?:_[A-Z]+)*|[a-z]+_[a-z_]+)(?:\([^`]*\))?`', text)) - {'write_name', 'read_name', 'is_name'}:
        assert re.search(rf'\b{name}\b', library), f'CONTRIBUTING.md names {name}, which the library does not know.'


def test_tests_in_contributing_select_something():
    "A test file after `pytest`, and a word after -k that is in the name of a test of it"
    for span in re.findall('`(?:python -m )?pytest ([^`]+)`', (ROOT/'CONTRIBUTING.md').read_text()):
        path, _, words = span.partition(' -k ')
        tests = ' '.join(re.findall(r'^def (test_\w+)', (ROOT/path.split()[0]).read_text(), re.M))
        for word in set(re.findall(r'\w+', words)) - {'or', 'and', 'name'}: assert word in tests, f'{span}: no test has {word} in its name.'


def test_pipelines_hold_no_exports():
    for path in PIPELINES: assert '#| export' not in path.read_text(), path


@pytest.mark.parametrize('path', PIPELINES, ids=lambda p: p.stem)
def test_pipelines_say_that_their_stored_outputs_are_of_a_smoke_run(path):
    title, summary, note, *_ = nbformat.read(path, 4).cells[0].source.split('\n\n')
    assert title.startswith('# ') and summary.startswith('> ')
    assert note.startswith('The outputs stored below come from a smoke run with the defaults of the parameters cell')
    assert (ROOT/re.search('`(params/[^`]*)`', note).group(1)).is_dir(), 'the folder that holds real sizes'


def test_readme_is_made_from_the_index():
    command = [BIN/'jupyter', 'nbconvert', '--log-level', 'ERROR', '--to', 'markdown', '--stdout', 'nbs/index.ipynb']
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert made.replace('](images/', '](nbs/images/').replace('](../', '](') == (ROOT/'README.md').read_text()


READERS = re.compile(r'\b(read_folder|read_pool|read_set)\(run\.inputs')

@pytest.mark.parametrize('path', [p for p in PIPELINES if p.stem != '10_render'], ids=lambda p: p.stem) # It reads models, no pictures
def test_every_pipeline_says_what_was_read(path):
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == 'code']
    source = '\n'.join(c.source for c in cells)
    printed = [o.text for c in cells for o in c.outputs if o.output_type == 'stream']
    assert re.search(r'^Read (no pictures|\w+: \d+ pictures?)', '\n'.join(printed), re.M), 'Read inputs by read_tables or read_pools, which print what was read, and store the outputs.'
    sections = source.partition('sections = [')[2]
    assert re.match(r'\s*\*page\.verdict_sections\(.*\n\s*inventory_section\(inventories\),', sections), 'The first sections must be *page.verdict_sections(conclusion) and then inventory_section(inventories).'
    assert 'read=plain_inventories(inventories)' in source, 'metrics.json must hold what was read.'
    bare = {m[0] for m in READERS.finditer(source)} - ({'read_set(run.inputs'} if 'read_pools(run.inputs' in source else set())
    assert not bare, f'{bare} reads an input without saying what was read; use read_tables or read_pools.'
