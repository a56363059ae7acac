__version__ = "0.2.0"

import os, sys

# jsonschema (under nbformat) looks for this optional check of IRIs, which nothing here uses and which takes more than a second to import
sys.modules.setdefault('rfc3987_syntax', None)
# Before torch is imported, by whomever: two torch processes whose threads wait busily slow each other five-fold
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

# What a Python prompt needs, each name imported from its module at its first use (PEP 562): rendering workers never load torch
_NAMES = {
    'core.seed': ('generator',), 'data.folder': ('read_folder', 'read_picture'), 'data.split': ('divide', 'pick_references'),
    'net.zoo': ('load_encoder',), 'model.registry': ('load_model',), 'model.similarity': ('classify', 'make_references'),
    'model.patchcore': ('PatchCore', 'make_bank'), 'model.inspector': ('make_inspector',), 'explain.method': ('make_explainer',),
    'judge.classify': ('score_classes',), 'report.similarity': ('search_sections',), 'report.page': ('write_page',),
}
_PLACES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_PLACES)


def __getattr__(name):
    if name not in _PLACES: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    from .core.documentation import with_arguments
    return with_arguments(getattr(import_module(f'.{_PLACES[name]}', __name__), name)) # `?` shows the comments of the arguments


def __dir__(): return sorted({*globals(), *_PLACES})
