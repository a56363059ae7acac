"""Jupyter of `make lab`: it saves a notebook as `nbdev-clean` leaves it, so that opening one changes no file.

JupyterLab writes the kernel's display name and exact Python version into every notebook that it opens, and execution counts into every cell."""
from pathlib import Path

from nbdev.clean import clean_nb
from nbdev.config import get_config


def save_clean(model, path, contents_manager, **kwargs):
    "Clean a notebook of the library before it is saved; other notebooks stay as they are"
    place = Path(contents_manager.root_dir)/path.lstrip('/')
    if model['type'] != 'notebook' or model['content']['nbformat'] != 4 or 'nbs' not in place.parts: return
    clean_nb(model['content'], allowed_cell_metadata_keys=get_config(path=place.parent).get('allowed_cell_metadata_keys'))


c.FileContentsManager.pre_save_hook = save_clean  # noqa: F821 - Jupyter provides c
