"Reports in a real browser: nothing runs, nothing is loaded, nothing overflows, and it prints"
import base64
import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from inspect_lib.core.error import UserError, visible
from inspect_lib.core.seed import generator
from inspect_lib.explain.neighbour import Neighbour
from inspect_lib.data.label import UNKNOWN
from inspect_lib.data.overlap import Overlap
from inspect_lib.report import page as p, render
from inspect_lib.report.conclusion import SENTENCES, Conclusion, Requirement, badge, line, plain_conclusion, sentences
from inspect_lib.report.draw import draw_figure
from inspect_lib.report.figure import histogram_figure, interval_figure
from inspect_lib.report.index import index_page
from inspect_lib.report.thumbnail import first_picture

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
VERDICT = dict(level='good', badge='Usable', remembered=0, judged=360, metric=dict(name='macro F1', unit='%', value=.975, low=.953, high=.989, n=360))
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
    wrong = Requirement('share of wrong answers', ROWS[1], .05, at_most=True, stated=False, of='pictures')
    judged = Conclusion('It answers 98.6 % (95 % interval 97 to 99.5 %) of 360 pictures, and answers 1.1 % (0.3 to 2.5 %) of all wrongly.',
                        (Requirement('share of right answers', ROWS[0], .96, of='rendered stand-in pictures'), wrong), Overlap(0, 360),
                        notes=('Judge it on real pictures before it goes to the line.', 'The encoder is hog-colour.', 'One class has 3 references.'))
    return p.page('Weld nut on the door reinforcement', [
        *p.verdict_sections(judged),
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
        *p.verdict_sections(Conclusion(' '.join(h), (Requirement(h[0], rows[0], .9, of=h[1]),), notes=tuple(h))), p.numbers(rows, h[1], h[4]),
        p.confusion(counts, h[0], h[1]), p.cases(shown, h[4]),
        p.gallery([tiny]*len(h), h, h[0]), p.figure(interval_figure(rows), h[1], h[0]), p.table(frame, h[1]),
        p.prose(h[4], h[9]), p.provenance(record)], h[4])


def example_index():
    earlier = VERDICT | dict(level='caution', badge='Not known', metric=VERDICT['metric'] | dict(value=.93, low=.88, high=.96))
    picture = first_picture(p.page('t', [p.gallery([plate(1, 'present')])]))
    return index_page([
        RECORD | dict(verdict=VERDICT, params=dict(k=5, seed=0), thumbnail='data:image/jpeg;base64,' + base64.b64encode(picture).decode()),
        RECORD | dict(verdict=earlier, params=dict(k=3, seed=0), started='2026-11-20T17:22:00+00:00', headline='93 % of 360 answers are right'),
        RECORD | dict(name='casting', started='2026-11-20T17:12:00+00:00', headline='Usable: not known. This is no result: 512 of 512 judged pictures were also training pictures.',
                      verdict=VERDICT | dict(level='bad', badge='No result', remembered=512)),
        RECORD | dict(name='neu_det', state='failed', started='2026-11-20T16:40:00+00:00', duration_s=3.1, path='30_similarity/neu_det/failed-1',
                      error=dict(name='UserError', text='data/neu_det/index.csv does not exist or is no file.', cell=3)),
        RECORD | dict(pipeline='10_render', name='door references', started='2026-11-21T09:40:00+00:00',
                      headline='72 frames'),
        {'path': '30_similarity/old/77ab', 'error': 'run.json is not valid JSON: Expecting value: line 1 column 9'}])


def hostile_index():
    verdict = lambda text: VERDICT | dict(badge=text, metric=VERDICT['metric'] | dict(name=text))
    runs = [RECORD | dict(pipeline=text, name=text, headline=text, path=text, key=text, verdict=verdict(text), params={text: text, 'k': k}) for text in HOSTILE for k in (1, 2)]
    runs += [RECORD | dict(state='failed', name=text, path=text, error=dict(name=text, text=text, cell=2)) for text in HOSTILE]
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
    assert bool(sizes) == (name != 'hostile_index')


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


@pytest.mark.parametrize('name, low, high', [('example', 3, 8), ('hostile', 3, 40), ('example_index', 1, 2)])
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


share = st.floats(0, 1)
metrics = st.one_of(st.just(dict(value=None, low=None, high=None, n=0)),
                    st.tuples(share, share, share).map(sorted).map(lambda v: dict(low=v[0], value=v[1], high=v[2], n=40)),
                    share.map(lambda v: dict(value=v, low=None, high=None, n=1)), st.just(dict(value=float('nan'), low=float('nan'), high=float('nan'), n=0)))
requirements = st.builds(Requirement, st.just('F1'), metrics, st.none() | share, st.booleans(), st.booleans())
conclusions = st.builds(Conclusion, st.just('It answers.'), st.lists(requirements, max_size=3).map(tuple), st.builds(Overlap, st.integers(0, 2), st.just(40)),
                        faults=st.lists(st.sampled_from(['', 'Nothing was found.']), max_size=1).map(tuple), doubts=st.lists(st.sampled_from(['', 'Masks are not known.']), max_size=1).map(tuple),
                        notes=st.lists(st.just('A note.'), max_size=5).map(tuple))


def is_met(r: Requirement) -> bool:
    "By hand: the whole interval lies on the right side of the bound"
    low, high = r.metric['low'], r.metric['high']
    return low is not None and low == low and (high <= r.bound if r.at_most else low >= r.bound)


@given(conclusions)
@settings(max_examples=1500, deadline=None)
def test_nothing_is_green_that_nobody_asked_for(c):
    "Good only where a requirement was stated that could be missed, every whole interval meets its bound, and no judged picture was remembered"
    asked = [r for r in c.requirements if r.stated and r.bound is not None and r.bound != (1 if r.at_most else 0)]
    met = all(is_met(r) for r in c.requirements if r.bound is not None)
    assert (c.level == 'good') == bool(asked and met and not c.overlap and not any(c.doubts) and not any(c.faults))
    assert (badge(c)[1] == 'Usable') == line(c).startswith('Usable: yes') == (c.level == 'good')
    if c.overlap: assert c.level == 'bad' and 'This is no result' in line(c) and not any('%' in text for text in (line(c), *sentences(c))), 'no score on remembered pictures'
    if not asked and not c.overlap: assert 'no requirement' in line(c).lower() or line(c).startswith(('Usable: not', 'Usable: no.'))
    plain = plain_conclusion(c)
    assert len(plain['sentences']) <= SENTENCES and plain['level'] == c.level and ('class="verdict good"' in p.verdict_sections(c)[0].html) == (c.level == 'good')


def test_done_and_good_look_different(open_page):
    tab = open_page('example_index')
    colour = lambda text: tab.evaluate("b => getComputedStyle(b).backgroundColor", tab.locator('.badge', has_text=text).first.element_handle())
    assert len({colour(text) for text in ('Done', 'Usable', 'Not known', 'No result')}) == 4, 'a run that ended is grey; green, amber and red say what came out'
    assert colour('No result') == colour('Failed')
    door = tab.locator('li.run').first
    assert 'k 5' in door.inner_text() and 'seed' not in door.inner_text() and door.locator('img').count() == 1, 'only what differs, and a picture'
    failed = tab.locator('li.is-failed').inner_text()
    assert 'Cell 4: data/neu_det/index.csv does not exist' in failed
    assert tab.locator('li.is-failed a').evaluate_all('all => all.map(a => a.getAttribute("href"))') == [f'./30_similarity/neu_det/failed-1/{name}' for name in ('notebook.ipynb', 'log.txt')]
    assert 'macro F1 of 2 runs' in tab.locator('figure.trend').inner_text() and 'parameters differ: k' in tab.locator('figure.trend').inner_text()


def test_the_index_filters_without_a_script(open_page):
    tab = open_page('example_index')
    seen = lambda: [text.split(chr(10))[0] for text in tab.locator('li.run').evaluate_all('all => all.filter(e => e.offsetParent).map(e => e.innerText)')]
    assert len(seen()) == 6
    tab.get_by_label('Failed').check(); assert len(seen()) == 1 and 'neu_det' in seen()[0]
    assert tab.locator('h2:visible').all_inner_texts() == ['30_similarity'], 'a heading without a run is hidden, too'
    tab.get_by_label('Usable (1)', exact=True).check(); assert len(seen()) == 1 and 'door' in seen()[0]
    tab.get_by_label('All').check(); assert len(seen()) == 6
