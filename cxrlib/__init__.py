"""Library of the executable companion book on the fairness of CLIP models for chest X-rays."""

import warnings

from cxrlib.core import used

# Libraries import tqdm, which in a notebook asks for widgets that a static page cannot show.
warnings.filterwarnings("ignore", message="IProgress not found")

used.watch()
