"""Let PyPI's CUDA build of torchvision load beside a torch that was built for processors only.

PyPI's torchvision for Linux is built for CUDA. Beside a CPU build of torch, `import torchvision` fails: its libraries
ask for three CUDA libraries that are not there, although none of their CPU code calls them. `make install` runs this
script with the environment's Python: where the two builds do not fit, it compiles small stand-in libraries that define
the missing names and nothing else, and a `.pth` file loads them when Python starts. Where the builds fit, or the
stand-ins are there already, it does nothing.

It is no part of the library and needs only the standard library, `nm` and, where something must be compiled, `gcc`.
"""
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

LIBRARIES = ('_C.so', 'image.so') # Of torchvision
RUNTIME = 'libcudart.so.13' # The CUDA runtime that they are linked to
LOADER = '''"Loads the libraries beside it: what torchvision's build for CUDA asks for and this torch lacks."
import ctypes, os
for name in sorted(os.listdir(os.path.dirname(__file__))):
    if '.so' in name: ctypes.CDLL(os.path.join(os.path.dirname(__file__), name))
'''


class InstallError(Exception):
    "What is missing, in one sentence"


def installed(package: str) -> Path: # Its folder
    "Find a package without importing it"
    spec = importlib.util.find_spec(package)
    if spec is None: raise InstallError(f'{package} is not installed.')
    return Path(spec.origin).parent


def is_mismatched(
    torch: Path, # Folder of the package
    torchvision: Path, # Folder of the package
) -> bool:
    "Tell whether torchvision was built for CUDA and torch was not"
    library = torchvision/LIBRARIES[0]
    return library.is_file() and b'libtorch_cuda.so' in library.read_bytes() \
        and not (torch/'lib'/'libtorch_cuda.so').exists()


def missing_names(
    listing: str, # What `nm -D --undefined-only` prints
) -> tuple[set[str], set[str]]: # Of torch, of the CUDA runtime
    "Read the undefined CUDA names; those of the runtime carry its version, those of torch do not"
    names = set(re.findall(r'\bU (\S+)', listing))
    torch = {name for name in names if re.match(r'_ZNK?\d*(3c10|2at)4cuda', name)}
    return torch, {name.partition('@')[0] for name in names if re.match(r'(__)?cuda\w+@', name)}


def stand_in(i: int, name: str) -> str: # C source
    """Define one name.

    A function of the runtime answers 100, "no CUDA-capable device is detected"; one that a library calls when it is
    loaded answers 0; the one that must return storage returns storage, and `allocator` is a variable. Nobody calls the
    others: a CPU tensor takes torchvision's CPU code.
    """
    if name.endswith('9allocatorE'): return f'void *v{i}[8] __asm__("{name}");'
    value = '(long)storage' if name == '__cudaRegisterFatBinary' else 100 if name.startswith('cuda') else 0
    return f'long f{i}(void) __asm__("{name}"); long f{i}(void) {{ return {value}; }}'


def stand_ins(
    names: Iterable[str], # As the linker knows them
) -> str: # C source
    "Define all names of one library"
    definitions = [stand_in(i, name) for i, name in enumerate(sorted(names))]
    return '\n'.join(['static void *storage[64];', *definitions]) + '\n'


def output(*command) -> str:
    "Run a command and return what it prints"
    try: done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    except FileNotFoundError:
        raise InstallError("torchvision's build for CUDA needs small stand-in libraries beside this torch, and "
                           f"'{command[0]}' is missing to make them: install gcc (Debian: apt-get install gcc).") from None
    if done.returncode: raise InstallError(f'{command[0]} failed: {done.stderr.strip()[-500:]}')
    return done.stdout


def compile_library(source: str, library: Path, version: str = ''):
    "Compile a shared library of that name, its symbols of that version"
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch)/'names.c').write_text(source)
        (Path(scratch)/'versions').write_text(f'{version} {{ global: *; }};\n')
        script = [f'-Wl,--version-script={scratch}/versions'] if version else []
        output('gcc', '-shared', '-fPIC', '-O1', '-w', f'-Wl,-soname,{library.name}', *script, '-o', library,
               f'{scratch}/names.c')


def asked(
    torchvision: Path, # Folder of the package
) -> dict[str, set[str]]: # Library that is not there -> names
    "List what torchvision asks for"
    names = [missing_names(output('nm', '-D', '--undefined-only', torchvision/name)) for name in LIBRARIES]
    torch, runtime = (set.union(*parts) for parts in zip(*names))
    return {'libc10_cuda.so': torch, 'libtorch_cuda.so': set(), RUNTIME: runtime}


def is_built(
    libraries: dict[str, set[str]], # Of `asked`
    site: Path, # Where Python looks for packages and `.pth` files
) -> bool:
    "Tell whether the stand-ins are there already and define all that is asked for"
    if not (site/'torchvision_cpu.pth').is_file(): return False
    for name, names in libraries.items():
        path = site/'torchvision_cpu'/name
        if not path.is_file(): return False
        listing = output('nm', '-D', '--defined-only', path)
        if not names <= {line.split()[-1].partition('@')[0] for line in listing.splitlines()}: return False
    return True


def build(
    libraries: dict[str, set[str]], # Of `asked`
    site: Path, # Where Python looks for packages and `.pth` files
) -> Path: # Folder of the libraries, a package of its own beside torchvision
    "Compile the stand-ins and have Python load them when it starts"
    folder = site/'torchvision_cpu'
    folder.mkdir(exist_ok=True)
    for name, names in libraries.items():
        compile_library(stand_ins(names), folder/name, name if name == RUNTIME else '')
    (folder/'__init__.py').write_text(LOADER)
    (site/'torchvision_cpu.pth').write_text('import torchvision_cpu\n')
    return folder


def fit(
    torch: Path, # Folder of the package
    torchvision: Path, # Folder of the package
) -> bool: # Whether there was something to do
    "Make torchvision fit torch"
    if not is_mismatched(torch, torchvision): return False
    libraries, site = asked(torchvision), torchvision.parent
    if is_built(libraries, site): return False
    build(libraries, site)
    return True


def main() -> int: # Exit code
    "Fit the packages of the Python that runs this"
    try: fit(installed('torch'), installed('torchvision'))
    except InstallError as error: print(error, file=sys.stderr); return 1
    return 0


if __name__ == '__main__': sys.exit(main())
