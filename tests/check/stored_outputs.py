"""What a notebook shows must be what it still computes: compare the outputs stored in two trees of notebooks.

Text must be equal but for the last digits of numbers; pictures must be there and of the same kind (their bytes
depend on fonts).
"""
import re
import sys
from pathlib import Path

import nbformat

NUMBER = re.compile(r'-?\d+\.\d+(?:e[-+]?\d+)?')


def shown(cell) -> list[tuple[str, str]]:
    "Kind and text of every output of a cell; what is written to stderr (progress) does not count"
    out = []
    for o in cell.get('outputs', []):
        if o.output_type == 'stream' and o.name == 'stderr': continue
        if 'data' in o:
            alone = len(o.data) == 1
            out += [(kind, text if kind == 'text/plain' and alone else '') for kind, text in o.data.items()
                    if kind != 'text/html']
        else: out.append((o.output_type, o.get('text', '')))
    return out


def alike(a: str, b: str) -> bool:
    "Equal text, numbers within 2 %"
    if NUMBER.sub('#', a) != NUMBER.sub('#', b): return False
    numbers = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)))
    return all(abs(x - y) <= .02*max(abs(x), abs(y), .05) for x, y in numbers)


def lies(stored: Path, fresh: Path) -> list[str]:
    "A sentence for every cell whose stored outputs are not what was computed"
    paths = sorted(p for p in stored.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    found, pairs = [], [(p, fresh/p.relative_to(stored)) for p in paths]
    for a, b in pairs:
        for i, (x, y) in enumerate(zip(nbformat.read(a, 4).cells, nbformat.read(b, 4).cells)):
            if 'pipelines' in a.parts or x.cell_type != 'code': continue
            x, y = shown(x), shown(y)
            if [k for k, _ in x] != [k for k, _ in y] or not all(alike(s, t) for (_, s), (_, t) in zip(x, y)):
                found.append(f'{a}, cell {i}: stored {x}, computed {y}')
    return found


if __name__ == '__main__':
    found = lies(*map(Path, sys.argv[1:]))
    print(*found, sep='\n')
    sys.exit(bool(found))
