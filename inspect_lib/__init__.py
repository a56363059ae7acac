__version__ = "0.1.0"

import sys

# jsonschema (under nbformat) looks for this optional check of IRIs, which nothing here uses and which takes more than a second to import
sys.modules.setdefault('rfc3987_syntax', None)
