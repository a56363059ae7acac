"""Frames between programs, cut off and changed: BlenderProc reads ours, we read its, and damage is told."""
import importlib.util
import json
import sys
import types

import h5py
import numpy as np
import pytest

from inspect_lib.core.error import UserError
from inspect_lib.core.seed import generator
from inspect_lib.core.image import read_image
from inspect_lib.data.folder import read_picture
from inspect_lib.data.frame import read_frame, verify_frame, write_frame
from inspect_lib.formats.annotation import read_annotations
from inspect_lib.formats.export import export_frames, verify_export


def frame() -> dict:
    rng = generator(0, 'frame')
    return dict(colors=rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), depth=rng.random((20, 30), dtype=np.float32),
                normals=rng.random((20, 30, 3), dtype=np.float32), instance_segmaps=np.eye(20, 30, dtype=np.uint8),
                category_id_segmaps=np.eye(20, 30, dtype=np.uint8))


@pytest.fixture
def viewer(monkeypatch):
    "BlenderProc's `vis hdf5`, without its package's `__init__`, which wants to be run by Blender"
    spec = importlib.util.find_spec('blenderproc')
    package = types.ModuleType('blenderproc')
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, 'blenderproc', package)
    from blenderproc.scripts import visHdf5Files
    return visHdf5Files


def test_blenderprocs_viewer_reads_ours(tmp_path, viewer):
    attributes = [dict(idx=1, name='nut', category_id=1)]
    write_frame(tmp_path/'000000.hdf5', frame(), dict(label='present'), attributes, 'light')
    viewer.vis_file(str(tmp_path/'000000.hdf5'), viewer.all_default_keys, save_to_path=str(tmp_path/'seen'))
    assert {p.name for p in (tmp_path/'seen').iterdir()} == {f'000000_{key}.png' for key in frame()}


def test_we_read_blenderprocs(tmp_path):
    "Its layout: gzip, attributes as JSON bytes, a version, no draw"
    attributes = [dict(idx=1, name='nut', category_id=1)]
    with h5py.File(tmp_path/'0.hdf5', 'w') as file:
        for key, array in frame().items(): file.create_dataset(key, data=array, compression='gzip')
        file['instance_attribute_maps'] = np.bytes_(json.dumps(attributes))
        file['blender_proc_version'] = np.bytes_('2.8.0')
    found = read_frame(tmp_path/'0.hdf5')
    assert found.attributes == attributes and found.draw == {} and (found.arrays['depth'] == frame()['depth']).all()
    with pytest.raises(UserError, match='not written by this library'): verify_frame(tmp_path/'0.hdf5')


@pytest.mark.parametrize('compression', ['none', 'light'])
def test_cut_off_anywhere(tmp_path, compression):
    write_frame(path := tmp_path/'0.hdf5', frame(), dict(label='present'), compression=compression)
    raw = path.read_bytes()
    for end in np.linspace(0, len(raw) - 1, 40).astype(int):
        path.write_bytes(raw[:end])
        with pytest.raises(UserError, match='0.hdf5'): verify_frame(path)


@pytest.mark.parametrize('compression', ['none', 'light'])
def test_changed_anywhere(tmp_path, compression):
    "A changed byte is found, unless it lies in what HDF5 does not use"
    write_frame(path := tmp_path/'0.hdf5', frame(), dict(label='present'), compression=compression)
    raw, rng, told = path.read_bytes(), generator(0, 'flip'), 0
    for at in rng.integers(0, len(raw), 60):
        changed = bytearray(raw); changed[at] ^= 1 << int(rng.integers(8)); path.write_bytes(changed)
        try: found = verify_frame(path)
        except UserError: told += 1
        else:
            assert all((found.arrays[key] == array).all() for key, array in frame().items())
            assert found.draw == dict(label='present')
    assert told > 20


# ---------------------------------------------------------------- colours that other programs write

COLORS = frame()['colors']
ALPHA = np.where(np.arange(600).reshape(20, 30) % 3 > 0, 255, 0).astype(np.uint8)
ON_WHITE = np.where(ALPHA[..., None] > 0, COLORS, 255)
GREY = np.repeat(COLORS[..., :1], 3, 2)
WRITTEN = {'RGB': (COLORS, COLORS), 'RGBA': (np.dstack([COLORS, ALPHA]), ON_WHITE), 'grey': (COLORS[..., 0], GREY), 'one channel': (COLORS[..., :1], GREY),
           '16 bits': (COLORS.astype(np.uint16)*257, COLORS), '16 bits, big-endian': (COLORS.astype('>u2')*257, COLORS),
           '16 bits, RGBA': (np.dstack([COLORS, ALPHA]).astype(np.uint16)*257, ON_WHITE), '16 bits, grey': (COLORS[..., 0].astype(np.uint16)*257, GREY)}


def foreign(path, **arrays):
    "A frame of another program, with one thing in it"
    with h5py.File(path, 'w') as file:
        for key, array in (dict(instance_segmaps=np.eye(20, 30, dtype=np.uint8)) | arrays).items():
            file.create_dataset(key, data=array, compression='gzip' if array.size else None)
        file['instance_attribute_maps'] = np.bytes_(json.dumps([dict(idx=0, name='bg', category_id=0), dict(idx=1, name='nut', category_id=1)]))
    return path


@pytest.mark.parametrize('name', WRITTEN)
def test_colours_are_right_or_refused_and_exports_hold_them(tmp_path, name):
    written, seen = WRITTEN[name]
    path = foreign(tmp_path/'0.hdf5', colors=written)
    assert (read_frame(path).arrays['colors'] == seen).all() and (read_picture(path) == seen).all()
    export_frames([path], tmp_path/'out', ['folders', 'coco', 'yolo', 'voc'])
    for form in ('folders', 'coco', 'yolo', 'voc'):
        assert verify_export([path], tmp_path/'out', form)['equal_pictures'] == 1
        pictures = [p for p in (tmp_path/'out'/form).rglob('*.png') if not {'instance_segmaps', 'SegmentationObject', 'SegmentationClass'} & set(p.parts)]
        assert len(pictures) == 1 and (read_image(pictures[0]) == seen).all()


@pytest.mark.parametrize('colors, why', [
    (COLORS/255., 'float64, which has no fixed white'), (COLORS.astype(np.float32), 'float32'), (COLORS.astype(np.int32), 'int32'),
    (COLORS[..., :2], '2 channels'), (np.dstack([COLORS, COLORS]), '6 channels'), (COLORS[None], 'is no image'), (np.zeros((0, 30, 3), np.uint8), 'is no image'),
    (COLORS.astype(np.uint16)*16, 'white_level: 4095'), (COLORS[:9], 'differ in size')])
def test_colours_without_a_meaning_are_one_sentence(tmp_path, colors, why):
    path = foreign(tmp_path/'0.hdf5', colors=colors)
    for read in (read_frame, read_picture, lambda path: export_frames([path], tmp_path/'out', ['folders', 'coco'])):
        with pytest.raises(UserError, match=f'0.hdf5.*{why}') as refused: read(path)
        assert '\n' not in str(refused.value)
    if why == 'differ in size':
        with pytest.raises(UserError, match=why): read_annotations([path])


@pytest.mark.parametrize('key, shape, kind', [('colors', (30_000, 30_000, 3), np.uint8), ('depth', (20_000, 20_000), np.float64),
                                              ('instance_segmaps', (1, 200_000_000), np.uint8), ('draw', (1,), 'S1500000000')])
def test_bytes_are_bound_not_values(tmp_path, key, shape, kind):
    "Kilobytes on the disk that would be gigabytes in memory"
    foreign(path := tmp_path/'0.hdf5', colors=COLORS)
    with h5py.File(path, 'r+') as file:
        if key in file: del file[key]
        file.create_dataset(key, shape=shape, dtype=kind, chunks=True if key != 'draw' else (1,), compression='gzip')
    assert path.stat().st_size < 3_000_000
    with pytest.raises(UserError, match=f"0.hdf5: key '{key}'.*read at once"): read_frame(path)
