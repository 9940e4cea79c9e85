"""Importing this module has OpenMP's threads sleep while they wait, instead of spinning.

In GNU OpenMP, which PyTorch, faiss and scikit-learn bring along, a thread that waits for others
spins for some hundred thousand rounds. Where anything else runs, it spins on the core that the
awaited thread needs, and a step of a training takes many times as long. The library reads its
environment when it is loaded, so this comes before all of them; processes that are started later
inherit it. What a user has set stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
