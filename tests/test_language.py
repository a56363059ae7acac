"Pages in German: every sentence of the rooms is translated, names are not touched, and nothing gets onto a page that was not on it."
import html, itertools, json, os, re, subprocess, time

import numpy as np
import pandas as pd
import pytest

from inspect_lib.core.error import UserError
from inspect_lib.core.paths import languages, workspace
from inspect_lib.data.overlap import Overlap
from inspect_lib.judge.tradeoff import Rate, Tradeoff
from inspect_lib.judge.verdict import Promise
from inspect_lib.model.decision import Decision
from inspect_lib.report import anomaly, localisation, similarity, siamese, tradeoff, verdict
from inspect_lib.report.conclusion import Conclusion, Requirement
from inspect_lib.report.document import document
from inspect_lib.report.index import index_page
from inspect_lib.report.language import catalogue, translate_html, translated
from inspect_lib.report.page import confusion, numbers, page, prose, table, verdict_sections
from inspect_lib.report.provenance import provenance
from inspect_lib.report.safety import check_page

DE = catalogue('de')
M = dict(value=.931, low=.886, high=.972, n=1234, groups=120)
NONE = dict(value=None, low=None, high=None, n=0, groups=0)
TERMS = {'Pipeline', 'Name', 'Code', 'Test', 'Parameter', 'inspect_lib', 'B minus A'} # The same word in both languages

def left(page: str) -> list[str]: # What a reader would meet in English
    return translate_html(page[page.find('<body>'):], DE)[1]

def sections_of_verdicts():
    for kind, stated, at_most, bound, metric in itertools.product(('real', 'drawn', 'rendered stand-in'), (True, False), (True, False), (.5, .93, .99), (M, NONE)):
        yield from verdict_sections(Conclusion('', (Requirement('macro F1', metric, bound, at_most, stated, f'{kind} pictures'),)))
    for name, of in (('share of good pictures that raise an alarm', 'good real pictures'), ('share of pictures answered wrongly', 'real pictures'),
                     ('share of defective pictures accepted as good', 'defective real pictures'), ('share of good pictures called defective', 'good real pictures')):
        yield from verdict_sections(Conclusion('', (Requirement(name, M, .05, True, False, of),)))
    for used_as, n in itertools.product(('training or calibration', 'reference or calibration', 'training or reference', 'reference'), (0, 1, 7)):
        overlap = Overlap(n, 96, used_as)
        yield from verdict_sections(Conclusion('It answers every picture, 50 % of 96 rightly.', overlap=overlap))
        yield numbers([dict(name='Macro F1') | M, dict(name='Right answers') | NONE], f'{verdict.overlap_in_words(overlap)} With 95 % intervals over groups.')

def sections_of_tradeoffs():
    rate = lambda n: Rate(*[np.array([.1, .2, .3])]*3, n, n)
    price = dict(more=1, of=96, spared=M)
    for words, (a, b), at, (p, point) in itertools.product((tradeoff.ErrorWords(), tradeoff.ANSWERS, tradeoff.ALARMS), ((9, 9), (0, 9), (9, 0)), (.5, .7),
                                                           ((price, (M, M)), (None, None), (price, (M, M | dict(value=0.))))):
        if words is tradeoff.ANSWERS and not a: continue # No picture was judged
        t = Tradeoff(np.array([.3, .5, .7]), rate(a), rate(b), at, .5, p, point if a and b else None)
        for text in (tradeoff.point_in_words(t, words), tradeoff.price_in_words(t, words), tradeoff._legend_in_words(t), tradeoff.CALIBRATED, tradeoff.GIVEN, tradeoff.READ_ONLY):
            if text: yield prose(text, 'What slip-through costs')

def sections_of_search():
    coverage = {key: M for key in similarity.TITLES} | dict(coverage=M, false_accept_rate=M)
    yield prose(similarity.unknown_in_words(coverage))
    yield numbers([dict(name=name) | M for name in similarity.TITLES.values()])
    yield confusion(pd.DataFrame([[3, 1, 0], [0, 4, 2]], ['nut', 'bolt'], ['nut', 'bolt', "I don't know"]))

def sections_of_inspector():
    for errors, groups, rate, upper in ((0, 100, .05, .03), (20, 100, .05, .3), (0, 5, .05, .5), (3, 9, 1, .6)):
        for kind in verdict.KINDS: yield prose(verdict.promise_in_words(kind, Promise(rate, .95, errors, groups, groups, upper)))
    for unknown in (M, M | dict(value=0.)):
        yield prose(verdict.verdict_in_words(dict(false_accept_rate=M, false_reject_rate=M, unknown=unknown)))
    for shift in (-.2, 0, .2):
        low = {key: M['value'] + shift for key in ('value', 'low', 'high')}
        for name in ('nearest pictures, untrained', 'nearest pictures, trained'):
            yield prose(siamese.comparison_in_words(dict(inspector=dict(roc_auc=M), **{name: dict(roc_auc=M | low)})))
    compared = {name: {key: M for key in siamese.METRICS} for name in ('the inspector', 'nearest pictures, untrained', 'nearest pictures, trained')}
    yield siamese.comparison_section(compared)
    yield numbers([dict(name=name, note=note) | M for name, note in verdict.TITLES.values()])
    plan = dict(rotation=[-180, 180], zoom=[.9, 1.1], brightness=[.8, 1.2], contrast=[.8, 1.2], noise=[0, 5], horizontal_flip=.5, vertical_flip=.5)
    for shown in (plan, {}): yield prose(siamese.plan_in_words(shown))
    for ran in (10, 6):
        words = siamese.training_in_words(dict(best=dict(epoch=4), epochs=[0]*ran), 10, 'roc_auc')
        yield prose(f'Backbone inspect-tiny, 96 x 96 pixels, loss contrastive; {words}')
    for decision in (Decision(.5), Decision(.5, (.4, .6))): yield prose(verdict.decision_in_words(decision))

def sections_of_maps():
    yield numbers([dict(name=name, note=note) | M for name, note in anomaly.TITLES.values()])
    yield numbers([dict(name=name, note=note) | M for name, note in localisation.PLACE_TITLES.values()])
    alarms = dict(recall=M, false_alarm_rate=M)
    for metrics, places in ((alarms, {}), (alarms, dict(found=M)), (alarms, dict(found=M | dict(n=9))), (dict(false_alarm_rate=M), {})):
        yield prose(anomaly.anomaly_in_words(metrics, places))
    for name, n in (('one cell of the map', 1), ('5 pixels', 2)): yield prose(localisation.rule_in_words(name))
    yield prose('No defective picture was tested on, so whether it finds defects is not known.')
    for kind, (_, sign) in anomaly.KINDS.items(): yield prose(f'{sign} {kind}\n\n{kind} (3)')

ROOMS = dict(verdicts=sections_of_verdicts, tradeoffs=sections_of_tradeoffs, search=sections_of_search, inspector=sections_of_inspector, maps=sections_of_maps)

@pytest.mark.parametrize('room', ROOMS)
def test_no_sentence_of_a_room_stays_english(room):
    sections = list(ROOMS[room]())
    assert len(sections) > 2
    texts = left(page('casting, real pictures', sections, 'Siamese inspector'))
    assert not texts, sorted(set(texts))[:12]

def test_a_new_sentence_is_found_and_counted_in_the_footer():
    text = page('casting, real pictures', [prose('This sentence is new. It accepts all. Cases.')])
    assert left(text) == ['This sentence is new.', 'It accepts all.', 'Cases.'][:2] or left(text)[:2] == ['This sentence is new.', 'It accepts all.']
    german = document('Reports', '<p>This sentence is new.</p><footer>x</footer>', language='de')
    assert '1 Satz dieser Seite ist nicht übersetzt.' in german and '<html lang="de">' in german

def records():
    base = dict(pipeline='32_siamese', name='casting', key='a'*16, state='done', started='2026-11-21T10:01:00+00:00', duration_s=75.2, path='32_siamese/casting/a', params=dict(epochs=3, loss='contrastive'))
    concluded = dict(level='bad', badge='Not usable', line='', metric=dict(name='macro F1', unit='%') | M)
    line = 'Usable: no. It accepts 3.1 % (95 % interval 1.0 to 7.2 %) of 96 defective pictures as good, rejects 0 % (0 to 2.1 %) of 120 good ones, and answers every picture.'
    levels = (('good', 'Usable'), ('bad', 'No result'), ('caution', 'Not known'), ('measured', 'No requirement'), ('measured', 'Not judged'), ('bad', 'Not usable'))
    yield from (base | dict(key=f'{i:016}', headline=line, started=f'2026-11-{21 + i}T10:01:00+00:00', params=dict(epochs=i, loss='contrastive'), verdict=concluded | dict(level=level, badge=badge))
                for i, (level, badge) in enumerate(levels))
    yield base | dict(key='f'*16, state='failed', headline=None)

def test_index_in_german(monkeypatch):
    monkeypatch.setenv('INSPECT_LIB_LANGUAGE', 'en')
    english = index_page(list(records()))
    assert '<html lang="en">' in english and 'Usable: no.' in english and not left(english), left(english)
    monkeypatch.setenv('INSPECT_LIB_LANGUAGE', 'de')
    german = index_page(list(records()))
    for text in ('<html lang="de">', 'Brauchbar: nein.', '3,1\u00a0%', 'Schlupf', '21. Nov. 2026, 10:01 UTC', '✕ Kein Ergebnis', 'Fehlgeschlagen'): assert text in german, text
    for text in ('Usable', ' interval', 'Not known', 'took ', 'nicht übersetzt'): assert text not in german, text
    assert 'epochs 5' in german and '0'*12 in german
    assert german.count('Content-Security-Policy') == 1 and '<script' not in german
    monkeypatch.setenv('INSPECT_LIB_LANGUAGE', 'en')
    assert not left(index_page([]))

def test_frame_and_provenance_in_german():
    record = dict(key='ab'*20, pipeline='32_siamese', name='good', started='2026-03-02T08:00:00+00:00', duration_s=3.2, device='cpu', seed=0,
                  git=dict(revision='ab'*20, dirty=True), params=dict(loss='contrastive', batch='cases of a kind'), versions=dict(torch='2.1.0'))
    german = document('Reports', page('x', [provenance(record)]).partition('<body>')[2], language='de')
    for text in ('2. März 2026, 08:00 UTC', 'Wie es entstand', 'mit nicht eingecheckten Änderungen', '3,2 s', 'Schlüssel des Laufs', 'cases of a kind', '2.1.0', '<dt>loss'): assert text in german, text

def test_names_are_not_touched():
    names = ['Cases', 'Right', '1,234', "Usable: no.", 'Alarms on x']
    shown = confusion(pd.DataFrame(np.eye(5, dtype=int), names, names)).html
    german = translate_html(shown, DE)[0]
    for name in names: assert german.count(f'>{html.escape(name)}</span>') == shown.count(f'>{html.escape(name)}</span>') == 2
    assert translated('Query 1,234 of Cases.png, is Right', DE)[0] == 'Prüfbild 1,234 of Cases.png, ist Right'

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', '{name}', '{n:number}', '\\1', '%s', '&lt;b&gt;', 'a of b, c. D; e', ' · '*40, '\u202ehtml']
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_names_stay_text(name, monkeypatch):
    monkeypatch.setenv('INSPECT_LIB_LANGUAGE', 'de')
    sections = [prose(f'Picture {name}, is {name}'), table(pd.DataFrame({name: [name]})), confusion(pd.DataFrame([[1]], [name], [name]))]
    german = page(f'{name}, real pictures', sections)
    monkeypatch.setenv('INSPECT_LIB_LANGUAGE', 'en')
    english = page(f'{name}, real pictures', sections)
    tags = lambda text: re.findall(r'<(/?[a-z0-9]+)', text.partition('</title>')[2])
    assert tags(german) == tags(english)
    check_page(german, 'report.html')

def test_a_page_is_translated_quickly():
    report = ''.join(f'<p title="Picture {i}.png, is NIO">It accepts 3.{i % 10} % (95 % interval 1.0 to 7.2 %) of {i} defective pictures as good, rejects 0 % of {i} good ones, '
                     f'and answers every picture.</p><img alt="Picture {i}.png, is NIO" src="data:image/png;base64,{"A"*300}">' for i in range(1500))
    assert len(report) > 1e6*.7
    start = time.perf_counter(); translate_html(report, DE); assert time.perf_counter() - start < 1

@pytest.mark.parametrize('text', ['On ' + ' of '*20_000, 'Of 1 ' + ', and '*900, '. A'*2000, 'It accepts '*300 + '(', '1,'*50_000, '1 '*1900 + 'x', '3 to '*700, ' · '*5000, '9'*3999, ', '.join('It is' for _ in range(600))])
def test_no_text_takes_long(text):
    body = ''.join(f'<p>{html.escape(text)}{i}</p>' for i in range(10))
    start = time.perf_counter(); translate_html(body, DE); assert time.perf_counter() - start < 1.5, time.perf_counter() - start

def test_catalogue_keeps_numbers_and_names():
    assert languages() == ['en', 'de']
    wrong = [t.literals for t in DE.templates if sorted(set(t.names)) != sorted(set(re.findall(r'\{(\w+)\}', t.translation)))]
    assert not wrong and not [e for e, d in DE.exact.items() if e == d and e not in TERMS and len(e.split()) > 3]
    numbers_of = lambda text: sorted(re.findall(r'\d+', text.replace('F1', '')))
    assert not [(e, d) for e, d in DE.exact.items() if numbers_of(e) != numbers_of(d)]

def test_an_unknown_language_is_one_sentence(monkeypatch):
    monkeypatch.setenv('INSPECT_LIB_LANGUAGE', 'klingon')
    with pytest.raises(UserError, match="'language' is 'klingon'; there are en, de"): workspace()

@pytest.mark.slow
@pytest.mark.parametrize('pipeline', ['30_similarity', '32_siamese', '34_anomaly'])
def test_a_real_run_in_german(pipeline, tmp_path):
    def run(language):
        (tmp_path/'params'/pipeline).mkdir(parents=True, exist_ok=True)
        (tmp_path/'params'/pipeline/'defaults.yaml').write_text('{}\n')
        env = os.environ | dict(INSPECT_LIB_LANGUAGE=language, INSPECT_LIB_REPORTS=str(tmp_path/language), INSPECT_LIB_PARAMS=str(tmp_path/'params'))
        done = subprocess.run(['inspect-lib', 'run', pipeline, 'defaults'], env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        report, = (tmp_path/language/pipeline/'defaults').glob('*/report.html')
        return report
    german, english = run('de'), run('en')
    text = german.read_text()
    assert german.parent.name == english.parent.name # The language is no part of the key
    assert '<html lang="de">' in text and 'nicht übersetzt' not in text, sorted(set(left(english.read_text())))[:12]
    headlines = [json.loads((folder.parent/'metrics.json').read_text())['headline'] for folder in (german, english)]
    assert headlines[0] == headlines[1] and headlines[0].startswith('Usable')
    check_page(text, 'report.html')
