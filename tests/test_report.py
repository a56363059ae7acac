"Reports in a real browser: nothing runs, nothing is loaded, nothing overflows, and it prints"
import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from inspect_lib.core.error import UserError, visible
from inspect_lib.core.seed import generator
from inspect_lib.explain.neighbour import Neighbour
from inspect_lib.data.label import UNKNOWN
from inspect_lib.report import page as p, render
from inspect_lib.report.draw import draw_figure
from inspect_lib.report.figure import histogram_figure, interval_figure
from inspect_lib.report.index import index_page

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(2)>', "'; alert(3) //", 'a/b\\c',
           '</style><style>body{display:none}</style>', '{{ 7*7 }}{% raw %}', 'x'*300, 'ナット有り 螺母 гайка صامولة',
           'javascript:alert(4)', '<svg onload=alert(5)>', 'evil \u202e gnol', 'nul \x01 bell']


def plate(i, kind):
    "A steel plate with a hexagon nut, a larger one, or its bare hole"
    rng = generator(i, 'plate'); y, x = np.mgrid[:160, :160] - 80 + rng.integers(-9, 10, (2, 1, 1))
    turn = rng.uniform(0, np.pi); x, y = x*np.cos(turn) - y*np.sin(turn), x*np.sin(turn) + y*np.cos(turn)
    r = np.max([abs(x*np.cos(a) + y*np.sin(a)) for a in (0, np.pi/3, 2*np.pi/3)], 0)
    grey = rng.uniform(95, 135) + x/3 + rng.normal(0, 5, (160, 160))
    grey = np.where(r < {'present': 40, 'wrong size': 55}.get(kind, 0), 196 - y/2, grey)
    return np.clip(np.where(x**2 + y**2 < 330, 32, grey)[..., None]*[.97, 1, 1.04], 0, 255).astype(np.uint8)


def near(i, labels):
    return [Neighbour(plate(100*i + j, label), label, .012 + .017*j) for j, label in enumerate(labels)]


KINDS = ['present', 'missing', 'wrong size']
ROWS = [dict(name='Right answers', value=.975, low=.953, high=.989, n=360, groups=120,
             note='“I don’t know” counted as not right'),
        dict(name='Answered and wrong', value=.0111, low=.003, high=.025, n=360, groups=120,
             note='the chosen limit is 5 %'),
        dict(name='Answered at all', value=.9861, low=.97, high=.995, n=360, groups=120),
        dict(name='“missing” found', value=1., low=.884, high=1., n=120, groups=40),
        dict(name='Foreign parts refused', value=None, low=None, high=None, n=0, note='none was in the test set'),
        dict(name='Time for one picture', value=.0312, low=.03, high=.0334, n=360, unit='s')]
RECORD = dict(pipeline='30_similarity', name='door', key='9f2c'*16, state='done', started='2026-11-21T10:01:52+00:00',
              duration_s=185.2, path='30_similarity/door/9f2c', headline='97.5 % of 360 answers are right')
MADE = dict(device='CPU, 2 cores', seeds={'references': 0, 'queries': 1000},
            git=dict(revision='030bc5c1d2', dirty=True),
            params=dict(k=5, encoder='hog-colour', false_accept_rate=.05),
            inputs={'data/door/references': 'e3b0c442'*8},
            versions={name: '2.4.6' for name in ('numpy', 'pandas', 'torch', 'scikit-image', 'bpy', 'inspect_lib')})


def example_cases():
    "Two errors, one withheld answer, two right ones"
    p_, m, w = KINDS
    said = [(p_, w, [w, w, p_, w, p_]), (w, p_, [p_]*4 + [w]), (w, UNKNOWN, [w, p_, w, p_, m]),
            (p_, p_, [p_]*5), (m, m, [m]*5)]
    note = ['', '', 'Nearest reference at 0.31, the bound is 0.24.', '', '']
    name = ['data/door/queries/000000.hdf5', 'data/door/queries/000117.hdf5', '', '', '']
    return [p.Case(plate(i, gt), gt, pred, near(i, labels), note[i], name[i])
            for i, (gt, pred, labels) in enumerate(said)]


def example_figures():
    "Distances and draws"
    rng = generator(0, 'example')
    distances = histogram_figure(dict(right=rng.normal(.12, .04, 351).clip(0), wrong=rng.normal(.28, .06, 9)), 'distance', (.24, 'bound'))
    draws = [{'camera': {'location': rng.normal(0, .01, 3).tolist(), 'roll': rng.uniform(-5, 5)}, 'index': i,
              'lights': [{'power': rng.uniform(20, 60)}]*2, 'nut': {'angle': rng.uniform(0, 360)}} for i in range(240)]
    return [p.figure(distances, 'Distances of right and wrong answers', 'Right ones are near.',
                     'When it says “I don’t know”'),
            p.figure(draw_figure(draws), 'Histograms of camera, light and nut', '240 frames.',
                     'How the frames were varied')]


def example():
    "What a run on weld nuts could leave"
    counts = pd.DataFrame([[117, 0, 1, 2], [0, 120, 0, 0], [3, 0, 114, 3]], KINDS, [*KINDS, UNKNOWN])
    runs = pd.DataFrame({'encoder': ['hog-colour', 'dinov2-small'], 'macro F1': [.9733, np.nan], 'pictures': [360, 0]})
    return p.page('Weld nut on the door reinforcement', [
        p.verdict('97.5 % of 360 rendered stand-in pictures were told right, and no missing nut was overlooked. '
                  'Judge it on real pictures before it goes to the line.', 'caution'),
        p.numbers(ROWS, 'Judged on 360 rendered stand-in pictures of 120 parts that no reference shows.'),
        p.figure(interval_figure(ROWS[:5]), 'Five shares with their 95 % intervals', 'The same numbers as a picture.'),
        p.confusion(counts, '360 pictures.'),
        p.cases(example_cases(), 'All errors, and two right answers.'),
        *example_figures(),
        p.gallery([plate(50 + i, KINDS[i % 3]) for i in range(12)], KINDS*4, 'Every tenth reference.',
                  'The references'),
        p.table(runs, 'Runs side by side.', 'Other encoders'),
        p.prose('References and queries are rendered from the same CAD part with other seeds, lights and '
                'backgrounds.\n\nNothing here was measured on real pictures.', 'What this does not show'),
        p.provenance(RECORD | MADE)], 'Rendered stand-in pictures, not real ones')


def hostile():
    "Every text that a user can give is an attack"
    tiny, h = plate(0, 'present'), HOSTILE
    counts = pd.DataFrame(np.eye(len(h), dtype=int)*7 + 1, h, h)
    shown = [p.Case(tiny, a, b, [Neighbour(tiny, a, .1), Neighbour(tiny, b, .2)], note=a, name=b)
             for a, b in zip(h, h[1:])]
    rows = [dict(name=text, value=.5, low=.4, high=.6, n=9, note=text, unit=u) for text, u in zip(h, ['%', h[0]]*9)]
    frame = pd.DataFrame({text: [text, 1.5] for text in h}, index=pd.Index(['a', h[1]], name=h[0]))
    record = {text: {text: text} for text in h} | {'key': h[0], 'git': {'revision': h[1]}, 'started': h[0]}
    return p.page(h[0] + h[6], [
        p.verdict(' '.join(h), 'bad'), p.numbers(rows, h[1], h[4]),
        p.confusion(counts, h[0], h[1]), p.cases(shown, h[4]),
        p.gallery([tiny]*len(h), h, h[0]), p.figure(interval_figure(rows), h[1], h[0]), p.table(frame, h[1]),
        p.prose(h[4], h[9]), p.provenance(record)], h[4])


def example_index():
    return index_page([
        RECORD,
        RECORD | dict(name='casting', started='2026-11-20T17:12:00+00:00',
                      headline='91.2 % of 512 answers are right'),
        RECORD | dict(name='neu_det', state='failed', started='2026-11-20T16:40:00+00:00', duration_s=3.1,
                      headline='data/neu_det/index.csv does not exist or is no file.'),
        RECORD | dict(pipeline='10_render', name='door references', started='2026-11-21T09:40:00+00:00',
                      headline='72 frames'),
        {'path': '30_similarity/old/77ab', 'error': 'run.json is not valid JSON: Expecting value: line 1 column 9'}])


def hostile_index():
    runs = [RECORD | dict(pipeline=text, name=text, headline=text, path=text, key=text) for text in HOSTILE]
    return index_page(runs + [{'path': text, 'error': text} for text in HOSTILE] + HOSTILE)


PIPELINES = sorted(path.stem for path in (Path(__file__).parents[1]/'nbs'/'pipelines').glob('[!_]*.ipynb'))


@pytest.mark.parametrize('pipeline', PIPELINES)
def test_every_pipeline_has_its_room_and_the_room_offers_what_its_names_say(pipeline):
    p.check_room(p.room_of(pipeline))
    chapter = Path(__file__).parents[1]/'nbs'/'report'/f'{pipeline}.ipynb'
    assert chapter.exists(), f'The room of {pipeline} is written in {chapter}.'


@pytest.mark.parametrize('pipeline', PIPELINES)
def test_every_section_of_a_room_is_shown(pipeline):
    "A function *_section that nobody calls is a section that no report has"
    root, room = Path(__file__).parents[1], p.room_of(pipeline)
    users = [q for q in (*root.glob('nbs/pipelines/*.ipynb'), *root.glob('inspect_lib/**/*.py'), *root.glob('benchmarks/*.py'))
             if q.name != '_modidx.py' and q != Path(room.__file__)]
    text = ' '.join(q.read_text() for q in users)
    for name in [name for name in vars(room).get('__all__', ()) if re.search('_sections?$', name)]:
        assert re.search(rf'\b{name}\b', text), f'No report shows {room.__name__}.{name}: name it in the sections of nbs/pipelines/{pipeline}.ipynb.'


def test_what_the_rendering_benchmark_writes_is_shown():
    spec = importlib.util.spec_from_file_location('render_benchmark', Path(__file__).parents[1]/'benchmarks'/'render.py')
    benchmark = importlib.util.module_from_spec(spec); spec.loader.exec_module(benchmark)
    rows = [benchmark.table_row('throughput', 'Cycles alone', .95, .9), benchmark.table_row('export', 'render time', .1, .03, at_least=False)]
    html = render.benchmark_section(dict(rows=rows)).html
    assert 'Cycles alone' in html and '≥ 0.9' in html and '≤ 0.03' in html and 'reached' in html and 'missed' in html


def test_pictures_of_pages_are_there_and_small():
    "Chapters show pages as a browser draws them (Chromium, 760 pixels wide), stored beside the notebooks"
    shown = [(chapter.parent/name).resolve() for chapter in (Path(__file__).parents[1]/'nbs'/'report').glob('*.ipynb')
             for name in re.findall(r'\]\((\.\./images/[^)]*)\)', chapter.read_text())]
    assert len(shown) >= 10 and all(path.stat().st_size < 80_000 for path in shown)


PAGES = dict(example=example, hostile=hostile, example_index=example_index, hostile_index=hostile_index)
pytestmark = pytest.mark.filterwarnings('ignore:Glyph') # Figures are drawn with the fonts of matplotlib
build = cache(lambda name: PAGES[name]())


@pytest.fixture
def open_page(open_file, tmp_path):
    "Open a page of PAGES from a file"
    def open_(name, width=1280, text=None):
        path = tmp_path/f'{name}.html'; path.write_text(text or build(name), encoding='utf-8')
        return open_file(path, width)
    return open_


@pytest.mark.parametrize('name', PAGES)
def test_nothing_runs_and_nothing_is_loaded(open_page, name):
    tab = open_page(name)
    tab.wait_for_timeout(150)
    assert tab.complaints == []
    assert [url for url in tab.asked if not url.startswith('data:')] == [tab.url]
    assert tab.locator('script, iframe, object, embed, [style], [onerror], [onload]').count() == 0
    assert tab.evaluate('document.styleSheets.length') == 1


@pytest.mark.parametrize('name', PAGES)
def test_pictures_and_style_are_really_there(open_page, name):
    tab = open_page(name)
    assert tab.evaluate("getComputedStyle(document.querySelector('h1')).letterSpacing") != 'normal'
    sizes = tab.evaluate('[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length, i.width])')
    assert all(complete and natural > 20 and alt and width > 20 for complete, natural, alt, width in sizes)
    assert bool(sizes) == ('index' not in name)


def test_hostile_labels_are_seen_as_text(open_page):
    tab, index = open_page('hostile'), open_page('hostile_index')
    seen = [page.locator('main').text_content() for page in (tab, index)]
    for label in map(visible, HOSTILE): assert all(label in text for text in seen), label
    assert '49' not in tab.locator('.verdict').text_content()
    links = index.eval_on_selector_all('a', 'all => all.map(a => [a.protocol, a.getAttribute("href")])')
    assert links and all(protocol == 'file:' and href.startswith('./') for protocol, href in links)


def test_the_policy_would_stop_what_slipped_through(open_page):
    attack = ('<script>document.title="ran"</script><img src=x onerror="document.title=1">'
              '<p id=q style="color:red">q</p><style>h1{color:red}</style><img src="http://127.0.0.1:9/x.png">')
    tab = open_page('attack', text=build('example').replace('</main>', attack + '</main>'))
    colour = lambda selector: tab.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
    assert tab.title() == 'Weld nut on the door reinforcement' and 'rgb(255, 0, 0)' not in (colour('#q'), colour('h1'))
    stopped = [text for text in tab.complaints if 'Content Security Policy' in text]
    assert len(stopped) >= 5 and any('127.0.0.1' in text for text in stopped)


@pytest.mark.parametrize('width', [360, 1280])
@pytest.mark.parametrize('name', PAGES)
def test_no_sideways_scrolling(open_page, name, width):
    tab = open_page(name, width)
    assert tab.evaluate('document.documentElement.scrollWidth') <= width
    wide = '''[...document.querySelectorAll('main *')].map(e => [e, e.getBoundingClientRect().right])
              .filter(([e, right]) => right > innerWidth + 1 && !e.closest('.scroll'))
              .map(([e]) => e.outerHTML.slice(0, 90))'''
    assert tab.evaluate(wide) == []


@pytest.mark.parametrize('name', PAGES)
def test_headings_tables_and_landmarks(open_page, name):
    tab = open_page(name)
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels.count(1) == 1 == levels[0] and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    assert tab.locator('html').get_attribute('lang') == 'en' and tab.locator('main').count() == 1
    assert tab.locator('th:not([scope])').count() == 0
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    links = tab.evaluate("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    assert all(tab.locator(link).count() == 1 for link in links)


@pytest.mark.parametrize('name, low, high', [('example', 3, 8), ('hostile', 3, 40), ('example_index', 1, 1)])
def test_prints(open_page, name, low, high):
    pdf = open_page(name).pdf(format='A4', print_background=True)
    n = len(re.findall(rb'/Type\s*/Page\b', pdf))
    assert pdf.startswith(b'%PDF') and low <= n <= high


def test_a_thousand_pictures_stay_below_5_mb():
    "Worst case: pure noise, which no codec makes small"
    noise = [generator(i, 'noise').integers(0, 256, (200, 200, 3), dtype=np.uint8) for i in range(20)]
    one = p.Case(noise[0], 'a', 'b', [Neighbour(image, 'a', .1) for image in noise[1:6]])
    cases, gallery = p.page('t', [p.cases([one]*166)]), p.page('t', [p.gallery(noise*50, ['a caption']*1000)])
    assert gallery.count('<img') == 1000 and len(gallery.encode()) <= 5_000_000
    assert cases.count('<img') == 996 and len(cases.encode()) <= 5_000_000
    assert len(p.page('t', [p.gallery(noise, side=48)])) < len(p.page('t', [p.gallery(noise)]))


def test_half_surrogates_are_written_out_and_a_failing_disk(tmp_path):
    p.write_page(tmp_path/'a.html', 'name \udcff', [p.prose('\ud800')])
    assert r'name \udcff' in (tmp_path/'a.html').read_text(encoding='utf-8')
    with pytest.raises(UserError): p.write_page(tmp_path/'b.html', 't', ['no section'])
    assert [f.name for f in tmp_path.iterdir()] == ['a.html']
