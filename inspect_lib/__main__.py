"`python -m inspect_lib` is the command `inspect-lib`"
import sys

from .cli import main

sys.exit(main())
