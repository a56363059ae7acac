"""Rendering: the same frames by ours, by a two-pass baseline, by Cycles alone and by a scene rebuilt per frame; worker processes; export.

One command prints the whole table, ratios from runs in turns on this machine: `python benchmarks/render.py`.
`--models data/cad` renders model files in place of the embedded parts; `--json FILE` writes the results; `--quick` only
checks that everything works. The two-pass baseline is the one that "Optimizing Synthetic Data Pipelines and Explainable AI
for Industrial Applications" (2025) started from.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from inspect_lib.core.file import write_json
from inspect_lib.formats.export import export_frames
from inspect_lib.data.frame import read_frame
from inspect_lib.render.render_quality import NOISE_OFFSET as NOISE, psnr
from inspect_lib.render.render_set import Cluster, render_plan
from inspect_lib.render.usecase import make_plan

SETTINGS = [dict(samples=16, denoiser='fast'), dict(samples=32, denoiser='accurate'), dict(samples=64, denoiser='accurate'),
            dict(samples=128, denoiser='accurate'), dict(samples=250, denoiser='accurate', noise_threshold=.02)]
TWO_PASS = dict(samples=250, denoiser='none')
ROW = 10 # Planes of the two-pass scene, one per background


class Renderer:
    "A process with a Blender of its own, see `_blender.py`"
    def __init__(self, name: str, job: dict):
        self.log = tempfile.TemporaryFile()
        call = [sys.executable, Path(__file__).with_name('_blender.py'), json.dumps(job | dict(renderer=name, parent=os.getpid()))]
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def ask(self, **request) -> dict:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line: self.log.seek(0); raise RuntimeError(self.log.read().decode(errors='replace')[-3000:])
        return json.loads(line)

    def image(self, i: int, home: Path, seed: int = 0) -> np.ndarray:
        self.ask(image=i, seed=seed, to=str(home/'image.npy'))
        return np.load(home/'image.npy')

    def close(self): self.process.stdin.close(); self.process.wait(60)


def name_of(setting: dict) -> str:
    threshold = f", noise threshold {setting['noise_threshold']}" if setting.get('noise_threshold') else ''
    return f"{setting['samples']} samples{threshold}, " + ('no denoiser' if setting['denoiser'] == 'none' else setting['denoiser'])


# ---------------------------------------------------------------- one process: two-pass, Cycles, rebuilt, ours

def references(job: dict, frames: list, samples: int, home: Path) -> list:
    "The same frames with many samples of another noise"
    renderer = Renderer('cycles', job | dict(threads=os.cpu_count()))
    renderer.ask(engine=dict(samples=samples, denoiser='none'))
    images = [renderer.image(i, home, NOISE) for i in frames]
    renderer.close()
    return images


def compare_with_two_pass(job: dict, frames: list, settings: list, baseline: dict, many: int, home: Path) -> dict:
    "Seconds per frame and PSNR of the two-pass baseline and of ours with every setting, frame by frame in turns"
    ideal = references(job, frames, many, home)
    row = frames + list(range(1000, 1000 + ROW - len(frames)))
    renderers = {'two-pass': Renderer('two-pass', job | dict(row=row)), 'ours': Renderer('ours', job)}
    runs = [('two-pass', baseline)] + [('ours', s) for s in settings]
    for name, setting in runs[:2]: renderers[name].ask(engine=setting | dict(samples=1), frame=frames[0]) # Warm up
    times, clocks, images, passes = [[] for _ in runs], [[] for _ in runs], [[] for _ in runs], []
    for i in frames:
        for k, (name, setting) in enumerate(runs):
            answer = renderers[name].ask(engine=setting, frame=i)
            times[k].append(answer['seconds']); clocks[k].append(answer['clock'])
            if name == 'two-pass': passes.append(answer['second_pass'])
            images[k].append(renderers[name].image(i, home))
    for renderer in renderers.values(): renderer.close()
    rows = [dict(renderer=name, setting=name_of(s), seconds=float(np.mean(t)), clock=float(np.mean(c)), psnr=psnr(p, ideal))
            for (name, s), t, c, p in zip(runs, times, clocks, images)]
    return dict(rows=rows, second_pass=float(np.mean(passes)))


def two_pass_rows(result: dict) -> list[dict]:
    "Print the comparison; the goal is about the fastest of ours that is as good"
    old, *ours = result['rows']
    print(f"two-pass, {old['setting']}: {old['seconds']:.2f} s/frame (of these {result['second_pass']:.2f} s for its second pass), {old['psnr']:.1f} dB")
    for row in ours: print(f"  ours, {row['setting']}: {row['seconds']:.2f} s/frame, {row['psnr']:.1f} dB, two-pass / ours {old['seconds']/row['seconds']:.1f}")
    good = [row for row in ours if row['psnr'] >= old['psnr']]
    best, first = (min(good, key=lambda row: row['seconds']) if good else max(ours, key=lambda row: row['psnr'])), ours[0]
    note = best['setting'] if good else f"{best['setting']}, but {old['psnr'] - best['psnr']:.1f} dB below the baseline"
    by_clock = lambda row: f"; wall time {old['clock']/row['clock']:.1f}"
    return [table_row('seconds per frame, all annotations', 'two-pass baseline, equal or better PSNR', old['seconds']/best['seconds'], 11, note + by_clock(best), met=good),
            table_row('seconds per frame, all annotations', 'two-pass baseline, our default setting', old['seconds']/first['seconds'], None,
                      f"{first['setting']}, {first['psnr'] - old['psnr']:+.1f} dB" + by_clock(first))]


def compare_with_cycles(job: dict, frames: list, rounds: int, setting: dict) -> list[dict]:
    "Cycles alone, a scene rebuilt per frame, and ours, in turns"
    renderers = {name: Renderer(name, job) for name in ('cycles', 'ours', 'rebuilt')}
    answers = {name: [] for name in renderers}
    for name, renderer in renderers.items(): renderer.ask(engine=setting, frame=frames[0])
    for _ in range(rounds):
        for i in frames:
            for name, renderer in renderers.items(): answers[name].append(renderer.ask(frame=i))
    for renderer in renderers.values(): renderer.close()
    mean, clock = ({name: float(np.mean([a[key] for a in timed])) for name, timed in answers.items()} for key in ('seconds', 'clock'))
    print(', '.join(f'{name} {s:.3f} s/frame' for name, s in mean.items()))
    return [table_row('throughput', f'Cycles alone ({name_of(setting)})', mean['cycles']/mean['ours'], .9, f"wall time {clock['cycles']/clock['ours']:.2f}"),
            table_row('seconds per frame', 'BlenderProc, scene rebuilt per frame, same process', mean['rebuilt']/mean['ours'], None,
                      f"wall time {clock['rebuilt']/clock['ours']:.2f}")]


def far_frames(n: int) -> list[dict]:
    "Frame 900,000 and after against frame 0 and after, in turns: draws alone, and whole frames of the station, which all cost the same"
    job, far = dict(use_case='station', config=dict(resolution=[64, 64], samples=16), seed=0, threads=1), 900_000
    plan = make_plan(job['use_case'], job['config'], job['seed'])
    def draws(first):
        start = time.process_time(); [plan.draw(first + i) for i in range(60)]
        return time.process_time() - start
    draws(0)
    drawn = [(draws(0), draws(far)) for _ in range(n)]
    renderer = Renderer('ours', job); renderer.ask(frame=0)
    whole = [[renderer.ask(frame=first + i)['seconds'] for first in (0, far)] for i in range(n)]
    renderer.close()
    def row(what, pairs):
        pairs = np.array(pairs)
        error = np.std(pairs[:, 1] - pairs[:, 0])/np.sqrt(len(pairs))/pairs[:, 0].mean()
        return table_row(what, 'frame 0 (station)', pairs[:, 1].mean()/pairs[:, 0].mean(), 1, f'within 2 %; standard error {error:.3f}', tolerance=.02)
    return [row('frame 900,000: its draw', drawn), row('frame 900,000, whole', whole)]


# ---------------------------------------------------------------- several processes

def frame_rate(paths: list, result) -> float:
    "Frames per second, without the start of Blender"
    ends = sorted(path.stat().st_mtime for path in paths)
    return len(paths)/(ends[-1] - ends[0] + np.mean(result.seconds))


def processes(job: dict, n: int, home: Path) -> tuple[list[dict], float]:
    "2 workers of 1 thread, 1 of 1, 1 of 2; a process per frame; an interval; and the seconds per frame of one worker"
    plan, rates, walls, median = make_plan(job['use_case'], job['config'], job['seed']), {}, {}, {}
    for name, cluster in (('1x1', Cluster(1, 1)), ('2x1', Cluster(2, 1)), ('1x2', Cluster(1, 2))):
        start = time.perf_counter()
        result = render_plan(plan, range(n), home/name, cluster)
        walls[name], rates[name], median[name] = time.perf_counter() - start, frame_rate(result.paths, result), float(np.mean(result.seconds))
    start = time.perf_counter()
    render_plan(plan, range(3), home/'each', Cluster(1, 1, frames_per_worker=1))
    each = (time.perf_counter() - start)/3
    print(f"{n} frames: " + ', '.join(f'{name} workers x threads {walls[name]:.1f} s' for name in walls) + f'; a process per frame {each:.1f} s each')
    rows = [table_row('2 workers, 1 thread each', '1 worker, 1 thread', rates['2x1']/rates['1x1'], 1.8, f"with starting Blender {walls['1x1']/walls['2x1']:.2f}"),
            table_row('2 workers, 1 thread each', '1 worker, 2 threads', rates['2x1']/rates['1x2'], 1.1, f"with starting Blender {walls['1x2']/walls['2x1']:.2f}"),
            table_row('seconds per frame', 'BlenderProc, a process per frame', each/median['1x1'], None)]
    return rows + interval(plan, n, home), median['1x1']


def interval(plan, n: int, home: Path) -> list[dict]:
    "The last third by two workers against the same frames of the full run"
    first = 2*n//3
    render_plan(plan, range(first, n), home/'part', Cluster(2, 1))
    pairs = [(read_frame(home/'1x1'/path.name), read_frame(path)) for path in sorted((home/'part').glob('*.hdf5'))]
    assert len(pairs) == n - first
    same = all(a.draw == b.draw and a.attributes == b.attributes and
               all((a.arrays[k] == b.arrays[k]).all() for k in ('depth', 'instance_segmaps', 'category_id_segmaps')) for a, b in pairs)
    off = np.array([np.abs(a.arrays['colors'].astype(int) - b.arrays['colors']).max(-1) for a, b in pairs])
    return [table_row(f'interval [{first}, {n})', 'full run: frames whose draws, labels, masks, depth are equal', float(same), 1),
            table_row(f'interval [{first}, {n})', 'full run: share of other pixels', float((off > 0).mean()), 1e-3, f'by {off.max()} at most', at_least=False,
                      met=off.max() <= 1)]


def export_cost(seconds_per_frame: float, written: float, home: Path) -> list[dict]:
    "Writing frames, and COCO from them, against rendering"
    paths = sorted((home/'1x1').glob('*.hdf5'))
    exported = export_frames(paths, home/'coco', ['coco'])[1]['coco']/len(paths)
    print(f'write {1e3*written:.1f} ms, export to COCO {1e3*exported:.1f} ms, frame {1e3*seconds_per_frame:.0f} ms')
    return [table_row('writing and exporting', 'render time', (written + exported)/(seconds_per_frame - written), .03, at_least=False)]


# ---------------------------------------------------------------- the table

def table_row(what: str, against: str, ratio: float, goal: float|None, note: str = '', at_least: bool = True, met=True, tolerance: float = 0.) -> dict:
    "A row, as `report.render.benchmark_section` shows it; `at_least`: the goal is a lower bound"
    good = None
    if goal is not None: good = bool(met and (abs(ratio - goal) <= tolerance if tolerance else ratio >= goal if at_least else ratio <= goal))
    return dict(what=what, against=against, ratio=float(ratio), goal=goal, at_least=at_least, good=good, note=note)


def print_table(rows: list[dict]):
    for row in rows:
        sign = '=' if row['note'].startswith('within') else '>=' if row['at_least'] else '<='
        goal = '' if row['goal'] is None else f"{sign} {row['goal']:g} " + ('reached' if row['good'] else 'MISSED')
        print(f"{row['what']:38} | {row['against']:62} | {row['ratio']:8.3g} | {goal:18} | {row['note']}")


def measure(use_case: str, config: dict, n: int, frames: list, settings: list, baseline: dict, many: int, rounds: int) -> dict:
    "All rows for one scene"
    job = dict(use_case=use_case, config=config, seed=0, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        comparison = compare_with_two_pass(job, frames, settings, baseline, many, home)
        rows = two_pass_rows(comparison) + compare_with_cycles(job, frames, rounds, settings[0]) + far_frames(n)
        process_rows, median = processes(job, n, home)
        renderer = Renderer('ours', job); renderer.ask(frame=0)
        written = float(np.mean([renderer.ask(frame=i)['write'] for i in frames])); renderer.close()
        rows += process_rows + export_cost(median, written, home)
    print_table(rows)
    return dict(rows=rows, two_pass=comparison)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--use-case', default='floating', choices=['floating', 'station'])
    parser.add_argument('--side', type=int, default=128, help='pixels')
    parser.add_argument('--models', default='', help='folder of model files, e.g. data/cad, for targets and distractors')
    parser.add_argument('--unit', type=float, default=1., help='metres per unit of the model files')
    parser.add_argument('--json', type=Path, help='file for the results')
    parser.add_argument('--quick', action='store_true', help='tiny: checks that it works')
    args = parser.parse_args()
    os.environ['TQDM_DISABLE'] = '1'
    side = [32, 32] if args.quick else [args.side]*2
    config = dict(resolution=side) if args.use_case == 'station' else dict(camera=dict(resolution=side))
    if args.models: config |= {f'{k}_models_dir': args.models for k in ('target', 'distraction')} | {k: dict(unit=args.unit) for k in ('targets', 'distractors')}
    size = dict(n=6, frames=[0, 1], settings=SETTINGS[:2], baseline=TWO_PASS | dict(samples=20), many=64, rounds=1) if args.quick else \
        dict(n=24, frames=[0, 1, 2, 3], settings=SETTINGS, baseline=TWO_PASS, many=1024, rounds=2)
    config |= settings_of(size['settings'][0])
    results = measure(args.use_case, config, **size)
    context = dict(use_case=args.use_case, config=config, processors=os.cpu_count(), bpy=version('bpy'), blenderproc=version('blenderproc'), quick=args.quick)
    if args.json: write_json(args.json, context | results)


def settings_of(setting: dict) -> dict: return dict(samples=setting['samples'])


if __name__ == '__main__': main()
