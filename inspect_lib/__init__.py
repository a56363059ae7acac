__version__ = "0.2.0"

import os, sys

# jsonschema (under nbformat) looks for this optional check of IRIs, which nothing here uses and which takes more than a second to import
sys.modules.setdefault('rfc3987_syntax', None)
# Before torch is imported, by whomever: two torch processes whose threads wait busily slow each other five-fold
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
