"""What the tests of extraction compare with: films in memory, a loop of three lines, processes."""

import hashlib
import os
import signal
import traceback
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cxrlib import cohorts

RESNET, VIT = "phantom-resnet", "phantom-vit"


def in_memory(n):
    """A phantom cohort whose films are drawn once; its rows are not in the order of names."""
    cohort = cohorts.load("phantom", n_images=n)
    films = cohort.images(np.arange(n))
    shuffle = np.random.default_rng(0).permutation(n)
    return replace(
        cohort,
        table=cohort.table.iloc[shuffle].reset_index(drop=True),
        images=lambda positions: films[shuffle[positions]],
    )


def bare(cohort, model):
    """Embeddings without anything of the extraction: float32 (n, d) in the order of the table."""
    parts = np.array_split(np.arange(len(cohort.table)), max(1, len(cohort.table) // 32))
    return torch.cat([model.encode_image(model.preprocess(cohort.images(p))) for p in parts])


def by_name(cohort, vectors):
    """Names of images and their vectors as a store has to hold them."""
    names = list(cohort.table["image_id"])
    order = sorted(range(len(names)), key=names.__getitem__)
    return [names[i] for i in order], np.asarray(vectors)[order]


def apart(a, b):
    """The largest length of a difference between rows."""
    return np.linalg.norm(np.asarray(a, float) - np.asarray(b, float), axis=1).max()


class Watched(nn.Module):
    """A network that first hands every batch to ``see``, in any process."""

    def __init__(self, network, see):
        super().__init__()
        self.inner, self.see = network, see

    def encode_image(self, batch):
        self.see(batch)
        return self.inner.encode_image(batch)


def watched(model, see):
    return replace(model, network=Watched(model.network, see))


def log(path, items):
    """Add lines that several processes may write, each whole."""
    with open(path, "ab", buffering=0) as file:
        file.write("".join(f"{item}\n" for item in items).encode())


def digests(images):
    """One short text an image; a batch of one that is encoded as two counts once."""
    return dict.fromkeys(hashlib.sha256(np.ascontiguousarray(x)).hexdigest()[:16] for x in images)


def forked(work):
    """Number of a new process that does ``work`` and ends with 0, or 1 if that raised."""
    if pid := os.fork():
        return pid
    try:
        torch.set_num_threads(1)  # the threads of this process are not there in the new one
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def ended(pid):
    """Exit status of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    return ended(pid)
