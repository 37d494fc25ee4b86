"""The expected best reward of k rollouts of a sample, estimated from all of its n rollouts."""

from math import comb

import numpy as np

from tuner.learn_to_ask.evaluation.bootstrap import FloatArray


def expected_best(rewards: FloatArray) -> FloatArray:
    """For every sample the mean, over all choices of k of its n rollouts, of the largest reward among the k.

    With rewards x_1 <= ... <= x_n it is the sum over i of C(i-1, k-1) / C(n, k) * x_i: x_i is the largest of that many
    choices. No choice is preferred, so it is an unbiased estimate of the best of k new rollouts. For rewards of 0 and
    1, c of them 1, it is pass@k = 1 - C(n-c, k) / C(n, k) of M. Chen et al., Evaluating Large Language Models Trained
    on Code, arXiv 2107.03374, section 2.1.

    Args:
        rewards: Of shape (samples, n), without NaN.

    Returns:
        Of the same shape: column k - 1 holds the best of k, which never falls with k.
    """
    n = rewards.shape[1]
    weights = [[comb(place, k - 1) / comb(n, k) for k in range(1, n + 1)] for place in range(n)]
    best: FloatArray = np.sort(rewards, axis=1) @ np.array(weights, dtype=np.float64).reshape(n, n)
    return best
