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
from inspect_lib.data.frame import read_frame, verify_frame, write_frame


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
