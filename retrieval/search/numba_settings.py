"""Numba, before it is used: its settings come from the environment, not from the current folder.

By itself it reads a `.numba_config.yaml` that lies there, also before each compilation. One that
names a folder as its cache has it unpickle what lies in that.
"""

import os

from numba.core import config

config._config_fname = os.devnull
config.reload_config()
