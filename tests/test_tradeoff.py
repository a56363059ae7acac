"""What slip-through costs, and whether an alarm is at the place: properties of the curve, and answers that are constructed."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspect_lib.core.seed import generator
from inspect_lib.judge.classify import share
from inspect_lib.judge.localisation import Localised, judge_places, localise, place_kinds, strict_answers
from inspect_lib.judge.tradeoff import class_tradeoff
from inspect_lib.data.label import DEFECT, GOOD, UNKNOWN

PICTURES = st.lists(st.tuples(st.one_of(st.just(float('nan')), st.integers(0, 12).map(lambda n: n/12)), st.booleans(), st.integers(0, 5)), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(PICTURES, st.integers(0, 12), st.integers(0, 4), st.booleans())
def test_the_curve_is_monotone_and_the_chosen_point_lies_on_it(pictures, step, width, accepts_high):
    scores, bad, groups = (np.array(column) for column in zip(*pictures))
    accept_at = step/12
    reject_at = accept_at - width/12 if accepts_high else accept_at + width/12
    curve = class_tradeoff(scores, bad, groups, accept_at, generator(0, 'curve'), accepts_high=accepts_high, reject_at=reject_at)
    accepted = scores >= accept_at if accepts_high else scores < accept_at
    rejected = scores < reject_at if accepts_high else scores >= reject_at
    for rate, metric, hit, side, sign in ((curve.false_accept, curve.point[0], accepted, bad, -1 if accepts_high else 1),
                                          (curve.false_reject, curve.point[1], rejected, ~bad, 1 if accepts_high else -1)):
        assert rate.n == side.sum() and rate.groups == len(set(groups[side]))
        if not rate.n: assert metric['value'] is None and np.isnan(rate.value).all(); continue
        assert np.isclose(metric['value'], hit[side].mean())
        for part in (rate.value, rate.low, rate.high): assert (sign*np.diff(part) >= -1e-12).all()
        assert (0 <= rate.low).all() and (rate.low <= rate.value + 1e-12).all() and (rate.value <= rate.high + 1e-12).all() and (rate.high <= 1).all()
        ends, answered = rate.value[[0, -1]][::sign], np.isfinite(scores[side]).mean()
        if answered: assert ends[0] == 0 and np.isclose(ends[1], answered) # What is withheld is no error anywhere
        assert rate.high[np.isclose(rate.value, 0)].min(initial=1) > 0 and rate.low[np.isclose(rate.value, 1)].max(initial=0) < 1 # Never a certainty


@settings(max_examples=20, deadline=None)
@given(PICTURES, st.integers(0, 12))
def test_a_point_has_the_interval_that_a_table_gives_or_a_wider_one(pictures, step):
    scores, bad, groups = (np.array(column) for column in zip(*pictures))
    if not bad.any(): return
    point = class_tradeoff(scores, bad, groups, step/12, generator(0, 'point')).point[0]
    table = share(scores >= step/12, groups, generator(0, 'point'), among=bad)
    assert np.isclose(point['value'], table['value']) and point['low'] <= table['low'] + 1e-9 and point['high'] >= table['high'] - 1e-9


def scene(x, y, size=64):
    "A map with one bright place, and that place"
    grid = np.mgrid[:size, :size]
    heat = np.exp(-((grid[1] - x)**2 + (grid[0] - y)**2)/50)
    return heat, np.hypot(grid[1] - x, grid[0] - y) < 6


@pytest.mark.parametrize('mask, place', [
    (scene(20, 20)[1], 'found'), (scene(50, 50)[1], 'wrong_place'), (None, 'unknown_place'),
    (np.zeros((64, 64), bool), 'wrong_place'), # The defect lies outside of what was looked at
    (np.pad([[True]], ((26, 37), (20, 43))), 'found'), # One pixel, within the cell of the strongest point
    (scene(20, 20)[1] & ~np.roll(scene(20, 20)[1], 2, 0), 'found'), # A part of an outline
])
def test_an_alarm_is_a_find_at_its_place_only(mask, place):
    heat, _ = scene(20, 20)
    where = localise(heat, mask, heat > .5, 8)
    assert place_kinds([DEFECT, GOOD, UNKNOWN], [True]*3, [where]*3).tolist() == [place, 'missed', 'withheld']
    assert strict_answers([DEFECT], [place], GOOD).tolist() == [GOOD if place == 'wrong_place' else DEFECT]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([DEFECT, GOOD, UNKNOWN]), st.sampled_from([None, True, False]), st.integers(0, 4)), min_size=1, max_size=20))
def test_the_kinds_of_defective_pictures_share_them_out(pictures):
    where = [None if hit is None else Localised(hit, 0., .1) for _, hit, _ in pictures]
    kinds = place_kinds([answer for answer, *_ in pictures], [True]*len(pictures), where)
    rates = judge_places(kinds, where, [group for *_, group in pictures], generator(0, 'kinds'))
    masked = sum(place is not None for place in where)
    assert all(rates[name]['n'] == masked for name in ('found', 'wrong_place', 'missed', 'withheld'))
    if masked: assert np.isclose(sum(rates[name]['value'] for name in ('found', 'wrong_place', 'missed', 'withheld')), 1)
    else: assert rates['found']['value'] is None and rates['unknown_place']['value'] == 1
