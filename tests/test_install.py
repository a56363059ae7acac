"""The install step that lets a CUDA build of torchvision load beside a CPU build of torch."""
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.ops import nms, roi_align

SCRIPT = Path(__file__).parents[1]/'tools'/'fit_torchvision.py'
LISTING = """                 U malloc@GLIBC_2.2.5
                 U _ZN3c104cuda12device_countEv
                 U _ZNK3c104cuda10CUDAStream5queryEv
                 U _ZN2at4cuda26getCurrentDevicePropertiesEv
                 U cudaEventQuery@libcudart.so.13
                 U _ZN2at6Tensor3sumEv"""
# Two libraries that ask for CUDA as torchvision's do: one calls the runtime when it is loaded, one reads a variable
CALLS = {
    '_C.so': 'extern long __cudaRegisterFatBinary(void), cudaEventQuery(void), count(void) __asm__("_ZN3c104cuda12device_countEv");\n'
             'long storage, status, devices;\n'
             '__attribute__((constructor)) void load(void) { storage = __cudaRegisterFatBinary(); }\n'
             'long query(void) { return cudaEventQuery(); } long number(void) { return count(); }\n',
    'image.so': 'extern void *allocator[] __asm__("_ZN3c104cuda20CUDACachingAllocator9allocatorE");\n'
                'void *first(void) { return allocator[0]; }\n'}

needs_gcc = pytest.mark.skipif(not (shutil.which('gcc') and shutil.which('nm')), reason='gcc and nm are needed')


@pytest.fixture(scope='module')
def fit():
    "The script as a module"
    spec = importlib.util.spec_from_file_location('fit_torchvision', SCRIPT)
    module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
    return module


def test_builds_are_compared_by_their_files(fit, tmp_path):
    torch, torchvision = tmp_path/'torch', tmp_path/'torchvision'
    for folder in (torch/'lib', torchvision): folder.mkdir(parents=True)
    assert not fit.is_mismatched(torch, torchvision) # Nothing compiled at all, e.g. another operating system
    (torchvision/'_C.so').write_bytes(b'\x7fELF libc10.so libtorch_cuda.so')
    assert fit.is_mismatched(torch, torchvision)
    (torch/'lib'/'libtorch_cuda.so').touch()
    assert not fit.is_mismatched(torch, torchvision)


def test_names_are_sorted_by_their_library(fit):
    torch_names, runtime_names = fit.missing_names(LISTING)
    assert len(torch_names) == 3 and runtime_names == {'cudaEventQuery'}


def test_stand_ins_answer_that_there_is_no_device(fit):
    assert 'return 100' in fit.stand_ins({'cudaEventQuery'})
    assert '(long)storage' in fit.stand_ins({'__cudaRegisterFatBinary'})


def test_what_is_missing_is_one_sentence(fit, monkeypatch, capsys):
    with pytest.raises(fit.InstallError, match='nonesuch is not installed'): fit.installed('nonesuch')
    with pytest.raises(fit.InstallError, match="'no-such-compiler' is missing"): fit.output('no-such-compiler')
    if shutil.which('nm'):
        with pytest.raises(fit.InstallError, match='nm failed'): fit.output('nm', '/nonesuch')
    monkeypatch.setattr(fit.importlib.util, 'find_spec', lambda name: None)
    assert fit.main() == 1 and capsys.readouterr().err == 'torch is not installed.\n'


@needs_gcc
def test_libraries_that_ask_for_cuda_load_beside_the_stand_ins(fit, tmp_path):
    torch, vision = tmp_path/'site'/'torch', tmp_path/'site'/'torchvision'
    torch.mkdir(parents=True); vision.mkdir()
    # Linked as the real ones are, the runtime's names with their version; what they are linked to is gone before they load
    linked = {'libc10_cuda.so': {'_ZN3c104cuda12device_countEv', '_ZN3c104cuda20CUDACachingAllocator9allocatorE'},
              'libtorch_cuda.so': set(), fit.RUNTIME: {'__cudaRegisterFatBinary', 'cudaEventQuery'}}
    for name, names in linked.items():
        fit.compile_library(fit.stand_ins(names), tmp_path/name, name if name == fit.RUNTIME else '')
    for name, source in CALLS.items():
        (tmp_path/'calls.c').write_text(source)
        fit.output('gcc', '-shared', '-fPIC', '-w', '-Wl,--no-as-needed', '-o', vision/name, tmp_path/'calls.c',
                   *[tmp_path/name for name in linked])
    for name in linked: (tmp_path/name).unlink()
    load = (f'import ctypes; c = ctypes.CDLL("{vision}/_C.so"); ctypes.CDLL("{vision}/image.so"); '
            'print(c.query(), c.number(), bool(ctypes.c_long.in_dll(c, "storage").value))')
    python = lambda text: subprocess.run([sys.executable, '-S', '-c', text], capture_output=True, text=True)
    assert python(load).returncode != 0

    assert fit.asked(vision) == linked
    assert fit.fit(torch, vision)
    built = tmp_path/'site'/'torchvision_cpu'
    assert {p.name for p in built.iterdir()} == {'__init__.py', *linked}
    start = f'import site; site.addsitedir({str(vision.parent)!r}); ' # Reads the .pth file, as Python's start does
    done = python(start + load)
    assert done.stdout.split() == ['100', '0', 'True'], done.stderr

    before = [p.stat().st_mtime_ns for p in sorted(built.iterdir())]
    assert not fit.fit(torch, vision) # Nothing is left to do
    assert [p.stat().st_mtime_ns for p in sorted(built.iterdir())] == before
    (built/'libc10_cuda.so').unlink()
    assert fit.fit(torch, vision) and python(start + load).returncode == 0


def test_a_second_run_in_this_environment_changes_nothing(fit):
    site = fit.installed('torchvision').parent
    state = lambda: {p.name: p.stat().st_mtime_ns for p in (site/'torchvision_cpu').glob('*.so*')}
    before = state()
    done = subprocess.run([sys.executable, '-I', SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr, state()) == (0, '', '', before)


def test_torchvisions_compiled_operators_work_here():
    boxes = torch.tensor([[0., 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    assert nms(boxes, torch.tensor([.9, .8, .7]), .5).tolist() == [0, 2] # The second box overlaps the first by 68 %
    ramp = torch.arange(16.).expand(1, 1, 16, 16)
    pooled = roi_align(ramp, [torch.tensor([[2., 2, 10, 10]])], 2, aligned=True)
    assert pooled[0, 0].round(decimals=4).tolist() == [[3.5, 7.5], [3.5, 7.5]] # Means of a ramp
