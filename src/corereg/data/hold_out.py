"""Holding out: validation pairs of patients that then do not train, for data sets that list none."""

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from corereg.data.pairs import Dataset
from corereg.errors import InputError

__all__ = ["hold_out"]


def hold_out(dataset: Dataset, fraction: float, *, seed: int) -> Dataset:
    """Move the pairs within a random share of the training scans from training to validation.

    Scans that pairs connect, such as those of one patient, stay together where the pairs fall into several groups.
    Otherwise (all patients with all) single scans are drawn, and pairs of a held-out scan with another one are dropped.
    No scan is trained and validated on.

    Args:
        fraction: share of the groups or scans, above 0 and below 1.

    Raises:
        InputError: the data set has validation pairs already, or one side would be left without a pair.
    """
    if dataset.validation:
        raise InputError(
            f"{dataset.name} has {len(dataset.validation)} validation pairs already; set val_fraction to 0 to use them"
        )
    pairs = np.array(dataset.training)
    scans, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(pairs.shape)
    graph = coo_array((np.ones(len(ends)), ends.T), shape=(len(scans), len(scans)))
    groups, group_of = connected_components(graph, directed=False)
    if groups == 1:
        groups, group_of = len(scans), np.arange(len(scans))
    count = max(round(fraction * groups), 1 if groups < len(scans) else 2)
    drawn = np.random.default_rng(seed).permutation(groups)[:count]
    held = np.isin(group_of, drawn)[ends]
    validation, training = (tuple((int(f), int(m)) for f, m in pairs[kept]) for kept in (held.all(1), ~held.any(1)))
    if not validation or not training:
        raise InputError(
            f"holding out {fraction:g} of {dataset.name} leaves {len(training)} training and {len(validation)} "
            "validation pairs, expected some of both; change val_fraction, or list the pairs in a CSV"
        )
    return replace(dataset, training=training, validation=validation)
