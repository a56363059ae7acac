"The page of all judged pictures in a real browser: its one script, without it, hostile names, thousands of pictures, and the way through archives"
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import add_pipeline
from inspect_lib.core.error import UserError, visible
from inspect_lib.core.show import overlay
from inspect_lib.data.label import DEFECT, GOOD, IO, NIO, UNKNOWN
from inspect_lib.judge.outcome import JUDGED, outcomes
from inspect_lib.report.anomaly import MapCase, map_cases
from inspect_lib.report.case import Case
from inspect_lib.report.document import document
from inspect_lib.report.page import cases, page
from inspect_lib.report.pictures import PAGE, PICTURES_STYLE, SCRIPT, Nearest, file_of, write_pictures
from inspect_lib.report.safety import check_page
from test_report import HOSTILE

MARK = np.zeros((240, 240), bool); MARK[90:150, 60:180] = True


def picture(i):
    grey = np.clip(np.random.default_rng(i).normal(90 + i % 100, 9, (240, 240, 1)), 0, 255)
    image = grey.astype(np.uint8).repeat(3, 2)
    return image, {'anomaly map': overlay(image, MARK)} if i % 2 else {}


def table(n, names=None):
    "Every tenth wrong, every tenth withheld; scores fall with the number"
    gt = np.array([NIO if i % 2 else IO for i in range(n)], object)
    pred = np.array([{3: IO, 7: UNKNOWN}.get(i % 10, gt[i]) for i in range(n)], object)
    return pd.DataFrame(dict(image_path=names or [f'data/line/{g}/{i:05}.png' for i, g in enumerate(gt)], group='g', gt_label=gt, pred_label=pred,
                             pred_score=np.linspace(.99, 0, n), outcome=outcomes(gt, pred), kind=np.where(gt == IO, 'good', 'scratch')))


def nearest(n):
    return Nearest(np.array([[i % 3, 2 - i % 3] for i in range(n)]), np.full((n, 2), .25), ['data/train/a.png', 'data/train/<b>.png', 'data/train/c.png'],
                   [IO, NIO, IO], lambda j: picture(j)[0])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    write_pictures(folder, table(40), picture, 'a line', nearest(40))
    return folder


def until(tab, condition):
    "Wait for a condition; the policy of the page forbids playwright's own way, which is `eval`"
    for _ in range(200):
        if tab.evaluate(f'() => {condition}'): return
        tab.wait_for_timeout(30)
    raise AssertionError(condition)


def says(tab, text): until(tab, f"document.querySelector('[role=status]').textContent === '{text}'")


def names(tab): return tab.locator('.wall .name').all_text_contents()


def test_it_is_filtered_sorted_and_searched(folder, open_file):
    tab = open_file(folder/PAGE)
    said, label = tab.get_by_role('status'), tab.get_by_label
    assert said.text_content() == '40 of 40 pictures' and names(tab)[:5] == ['00003.png', '00013.png', '00023.png', '00033.png', '00007.png'] # Wrong, withheld
    label('Outcome', exact=True).select_option('=wrong'); says(tab, '4 of 40 pictures')
    label('Outcome', exact=True).select_option(''); label('Is', exact=True).select_option('=' + IO); label('Score from').fill('.5')
    says(tab, '10 of 40 pictures')
    label('to', exact=True).fill('.6'); label('Sort by').select_option('up')
    says(tab, '2 of 40 pictures')
    assert names(tab) == ['00018.png', '00016.png']
    label('Score from').fill(''); label('to', exact=True).fill(''); label('Is', exact=True).select_option('')
    label('Search by name').fill('0001'); label('Sort by').select_option('name'); label('kind').select_option('=scratch')
    says(tab, '6 of 40 pictures')
    assert names(tab) == ['00001.png', '00011.png', '00013.png', '00015.png', '00017.png', '00019.png'] and tab.complaints == []


def test_a_picture_opens_with_its_map_and_references_and_by_the_keyboard(folder, open_file):
    tab = open_file(folder/PAGE)
    tab.get_by_label('Outcome', exact=True).focus(); tab.keyboard.press('Tab')
    tab.locator('.wall button').first.focus(); tab.keyboard.press('Enter')
    box = tab.get_by_role('dialog', name='00003.png')
    assert box.is_visible() and tab.url.endswith('#p3') and 'is NIO answered IO' in ' '.join(box.locator('.answer').all_inner_texts()[0].split())
    assert box.locator('.images figcaption').all_text_contents() == ['picture', 'anomaly map']
    assert box.locator('.neighbours figcaption').all_text_contents() == ['✗ IO, 0.25', '✗ IO, 0.25']
    until(tab, "[...document.querySelectorAll('dialog img')].every(i => i.complete && i.naturalWidth > 100 && i.alt)")
    shown = box.locator('.images img').evaluate_all('all => all.map(i => [i.getAttribute("src"), i.naturalWidth, i.getBoundingClientRect().width])')
    assert [src for src, *_ in shown] == [file_of(3), file_of(3, 0)] and all(natural == 240 and width >= 200 for _, natural, width in shown)
    tab.keyboard.press('ArrowRight'); assert tab.locator('#viewed').text_content() == '00013.png'
    tab.keyboard.press('ArrowLeft'); tab.keyboard.press('ArrowLeft'); assert tab.locator('#viewed').text_content() == '00003.png'
    tab.keyboard.press('Escape'); assert not box.is_visible()
    assert tab.evaluate("document.activeElement.querySelector('.name').textContent") == '00003.png'
    tab.goto(tab.url.split('#')[0] + '#p8'); assert tab.locator('#viewed').text_content() == '00008.png' # A link of the report
    assert tab.complaints == [] and all(url.startswith(('file:///', 'data:')) for url in tab.asked)


def test_everything_has_a_name_for_a_screen_reader(folder, open_file):
    tab = open_file(folder/PAGE)
    assert tab.evaluate("[...document.querySelectorAll('input, select')].every(e => e.labels.length === 1 && e.labels[0].textContent.trim())")
    assert tab.evaluate("[...document.querySelectorAll('.wall button')].every(b => b.textContent.trim())")
    assert tab.locator('.wall').get_attribute('aria-label') and not tab.locator('#judged').is_visible()
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)) and tab.locator('[style], [onclick], [onerror]').count() == 0


def test_without_a_script_it_is_a_table(folder, browser):
    context = browser.new_context(java_script_enabled=False); tab = context.new_page(); tab.goto((folder/PAGE).as_uri())
    assert tab.locator('#judged').is_visible() and tab.locator('#judged tbody tr').count() == 40 and tab.locator('button, select').count() == 0
    assert [tab.locator('#judged thead th').nth(i).text_content() for i in range(5)] == ['picture', 'is', 'answered', 'score', 'outcome']
    tab.locator('#p3 a').last.click(); assert tab.url.endswith(file_of(3, 0)) and tab.locator('img').count() == 1
    context.close()


def test_hostile_names_stay_texts(tmp_path, open_file):
    n = len(HOSTILE)
    judged = table(n, [f'data/{text}' for text in HOSTILE]).assign(gt_label=HOSTILE, pred_label=HOSTILE[::-1], outcome='wrong', kind=HOSTILE)
    hostile = Nearest(np.zeros((n, 1), int), np.zeros((n, 1)), [HOSTILE[1]], [HOSTILE[0]], lambda j: picture(j)[0])
    write_pictures(tmp_path, judged, lambda i: (picture(i)[0], {HOSTILE[i]: picture(i)[0]}), HOSTILE[0], hostile)
    check_page((tmp_path/PAGE).read_text(), PAGE)
    tab = open_file(tmp_path/PAGE)
    for i in range(n):
        tab.locator('.wall button').nth(i).click()
        text = tab.locator('dialog').text_content()
        assert visible(HOSTILE[i], keep='\n\t') in text and tab.locator('dialog .images img').count() == 2
        tab.keyboard.press('Escape')
    tab.get_by_label('Is', exact=True).select_option(index=1); tab.wait_for_timeout(150)
    assert tab.complaints == [] and tab.locator('script').count() == 1 and tab.locator('[onerror], [onload], svg').count() == 0
    assert {Path(url).parent.name for url in tab.asked if 'pictures/' in url} == {'pictures'}


def test_the_policy_stops_any_other_script(folder, open_file, tmp_path):
    attack = '<script>document.title="ran"</script><h1 onclick="x" id="q" style="color:red">q</h1><img alt="" src="http://127.0.0.1:9/x.png" onerror="document.title=1">'
    copy = shutil.copytree(folder, tmp_path/'copy')
    (copy/PAGE).write_text((copy/PAGE).read_text().replace('<main>', attack + '<main>'))
    tab = open_file(copy/PAGE); tab.wait_for_timeout(150)
    assert tab.title() == 'Pictures: a line' and tab.locator('.wall li').count() == 40
    assert len([text for text in tab.complaints if 'Content Security Policy' in text]) >= 4


@pytest.mark.parametrize('width', [360, 1280])
def test_it_fits(folder, open_file, width):
    tab = open_file(folder/PAGE, width)
    def fits(): assert tab.evaluate('document.documentElement.scrollWidth') <= width
    fits(); tab.locator('.wall button').first.click(); fits()
    assert tab.evaluate("[...document.querySelectorAll('dialog *, .wall *')].every(e => e.getBoundingClientRect().right <= innerWidth + 1)")


def test_five_thousand_pictures_open_nearly_as_fast_as_fifty(tmp_path, open_file):
    "Compared with a page of 50, so that a slow machine does not fail it; the files are links to a few"
    def opened(n):
        (folder := tmp_path/f'{n}').mkdir()
        write_pictures(folder, table(n), picture, f'{n}', nearest(n), limit=40)
        from inspect_lib.report.pictures import _references, pictures_page
        (folder/PAGE).write_text(pictures_page(table(n), range(n), {i: ['anomaly map'] for i in range(n)}, f'{n}', nearest(n), _references(folder, range(n), nearest(n))))
        tab = open_file(folder/PAGE)
        until(tab, "document.querySelectorAll('.wall li').length > 0")
        return tab, tab.evaluate("performance.now()")
    small, large = opened(50), opened(5000)
    assert large[1] < 8*small[1] + 1500, (large[1], small[1])
    tab = large[0]
    assert tab.get_by_role('status').text_content() == '5000 of 5000 pictures' and tab.locator('.wall li').count() <= 480
    took = tab.evaluate("() => { const t = performance.now(); const s = document.querySelectorAll('select'); s[s.length - 1].value = 'down';"
                        " s[s.length - 1].dispatchEvent(new Event('change')); return new Promise(r => setTimeout(() => r(performance.now() - t), 70)); }")
    assert took < 1500 and names(tab)[0] == '00000.png'


def test_a_report_shows_pictures_at_200_pixels_and_prints_numbers(folder, open_file, tmp_path):
    shown = [Case(picture(i)[0], NIO, IO, (), '', f'{i:05}.png', i) for i in (3, 13)]
    copy = shutil.copytree(folder, tmp_path/'copy')
    mapped = [MapCase(*picture(1)[:1], DEFECT, GOOD, 'scratch', MARK.astype(np.float32), MARK, .5, '00001.png', row=1)]
    (copy/'report.html').write_text(page('A line', [cases(shown, linked=True), map_cases(mapped, .5, linked=True)]))
    for width in (360, 1280):
        tab = open_file(copy/'report.html', width)
        assert all(side >= 200 for side in tab.locator('.query, .maps img').evaluate_all('all => all.map(i => i.getBoundingClientRect().width)'))
    tab.locator('.case a').first.click(); until(tab, "document.querySelector('dialog[open]')")
    assert tab.locator('#viewed').text_content() == '00003.png' and tab.complaints == []
    numbered = 'counter(page)' in open_file(copy/'report.html').evaluate("[...document.styleSheets[0].cssRules].map(r => r.cssText).join('')")
    assert numbered


BODY = """import numpy as np, pandas as pd
from inspect_lib.judge.outcome import write_judged
from inspect_lib.report import page as p
from inspect_lib.report.pictures import pictures_section, write_pictures
from inspect_lib.run.work import begin, finish
run = begin('40_toy', globals())
judged = pd.DataFrame(dict(image_path=[f'data/line/{i}.png' for i in range(4)], group='g', gt_label='IO', pred_label=['IO', 'NIO', 'IO', 'IO'], pred_score=.5,
                           outcome=['right', 'wrong', 'right', 'right']))
write_judged(run.folder, judged)
write_pictures(run.folder, judged, lambda i: (np.full((9, 9, 3), 9*i, np.uint8), {}), 'line')
finish(run, dict(n=4), 'Made.', p.page('Toy', [pictures_section(judged)]))"""


def test_through_archives(workspace, here, tmp_path_factory, open_file):
    add_pipeline(workspace, '40_toy', 'a: int = 1  # Any', BODY)
    (workspace/'params'/'40_toy').mkdir(parents=True); (workspace/'params'/'40_toy'/'a.yaml').write_text('')
    assert here('run', '40_toy', 'a').returncode == 0
    run = next((workspace/'reports'/'40_toy'/'a').glob('[0-9a-f]*'))
    assert here('wrong', '40_toy', 'a', '-o', 'w.zip').stdout == 'w.zip: 1 wrong picture, with maps and rows\n'
    with zipfile.ZipFile(workspace/'w.zip') as packed: assert packed.namelist() == [JUDGED, 'pictures/000001.jpg']
    assert here('export', 'a.tar.gz', '--run', run.name).returncode == here('export', 'p.zip', '--for-stakeholders', '--run', run.name).returncode == 0
    with zipfile.ZipFile(workspace/'p.zip') as packed: packed.extractall(outside := tmp_path_factory.mktemp('outside'))
    shutil.move(run, moved := workspace/'moved')
    assert here('import', 'a.tar.gz').returncode == 0 and here('verify', f'reports/40_toy/a/{run.name}').returncode == 0
    for place in (run, outside/'40_toy'/'a'/run.name):
        tab = open_file(place/'report.html'); tab.get_by_role('link', name='All 4 pictures').click()
        tab.locator('.wall button').first.click()
        until(tab, "[...document.querySelectorAll('dialog img')].every(i => i.naturalWidth === 9)")
        assert tab.locator('#viewed').text_content() == '1.png' and tab.complaints == []
    assert moved.is_dir() and not (outside/'40_toy'/'a'/run.name/'notebook.ipynb').exists()


@pytest.mark.parametrize('change, why', [(("'use strict'", "'use strict';alert(1)"), 'its script is none'), (('</style>', '@import "//x";</style>'), 'style sheet'),
                                         (('<h1>', '<h1 onclick="x">'), 'onclick'), (('<main>', '<main><script>x</script>'), '<script>')])
def test_a_page_with_another_script_is_refused(change, why):
    with pytest.raises(UserError, match=why): check_page(document('a', '<h1>a</h1><main></main>', PICTURES_STYLE, SCRIPT).replace('&lt;', '<').replace('&gt;', '>').replace(*change), PAGE)



def test_an_archive_with_another_script_is_refused(workspace, here, folder):
    add_pipeline(workspace, '40_toy', 'a: int = 1  # Any', BODY.replace('finish(run,', "path = run.folder/'pictures.html'; path.write_text(path.read_text().replace('showModal', 'close'))\nfinish(run,"))
    (workspace/'params'/'40_toy').mkdir(parents=True); (workspace/'params'/'40_toy'/'a.yaml').write_text('')
    assert here('run', '40_toy', 'a').returncode == 0
    run = next((workspace/'reports'/'40_toy'/'a').glob('[0-9a-f]*'))
    assert here('export', 'a.tar.gz', '--run', run.name).returncode == 0
    shutil.move(run, workspace/'moved')
    refused = here('import', 'a.tar.gz')
    assert refused.returncode == 1 and 'its script is none of those that this version knows' in refused.stderr and not run.exists()
