"""Self-selection and anchors against the plain rule, token by token."""

import math

import numpy as np
import pytest
import torch
from token_streams import KEYS, LAYERS, B, D, N, P, come, held, new_layers

from streamvggt import Prediction, SelfSelective
from streamvggt.model.eviction import PolicyContext
from streamvggt.stream.policies.self_selective import smooth_scores

NUM_FRAMES = 18
ADDED = np.random.RandomState(9).standard_normal((LAYERS, NUM_FRAMES, B, P, D))  # what the MLPs add to the tokens
JUMPS = ((3, 6, 7, 9, 14), (5,))  # frames of each stream at which its camera turns round to where nothing was seen


def output(frame: int) -> Prediction:
    """A wall before a camera that has jumped sideways so many times."""
    jumps = [sum(jump <= frame for jump in of_stream) for of_stream in JUMPS]
    pose_enc = torch.tensor([[[-100.0 * jump, 0, 0, 0, 0, 0, 1, 1, 1]] for jump in jumps])
    return Prediction((28, 28), pose_enc=pose_enc, depth=torch.ones(B, 1, 28, 28, 1))


def plain_score(added: np.ndarray) -> np.ndarray:
    """Lengths, for the patches mixed with the binomial mean of a 2 × 2 grid whose border is repeated. (P, D) → (P)"""
    length = np.sqrt((added**2).sum(-1))
    grid = length[5:].reshape(2, 2)
    near, far = 3 / 4, 1 / 4  # of two cells in a row with their border repeated, (1 + 2) / 4 and 1 / 4
    one_way = np.stack([near * grid[0] + far * grid[1], far * grid[0] + near * grid[1]])
    both = np.stack([near * one_way[:, 0] + far * one_way[:, 1], far * one_way[:, 0] + near * one_way[:, 1]], 1)
    return np.concatenate([length[:5], ((grid + both) / 2).ravel()])


def scaled(scores: dict[int, float]) -> dict[int, float]:
    lowest, highest = min(scores.values(), default=0), max(scores.values(), default=0)
    return {token: (score - lowest) / (highest - lowest) for token, score in scores.items()}


def plainly(policy: SelfSelective, layer: int, stream: int) -> list[set[int]]:
    """The rule, of one layer and stream: the tokens held after each frame."""
    tokens: list[int] = []
    since = 0  # frames from here on are new
    history = []
    for frame in range(NUM_FRAMES):
        tokens += range(frame * P, (frame + 1) * P)
        since = max(since, 1)
        if len(tokens) + P > (policy.budget_frames + policy.slack_frames) * P:
            keys = KEYS[layer, stream][:, tokens]  # (N, T, D)
            mean = keys.mean(1, keepdims=True)
            cosine = (keys * mean).sum(-1) / np.linalg.norm(keys, axis=-1) / np.linalg.norm(mean, axis=-1)
            unlike = dict(zip(tokens, (1 - cosine).mean(0), strict=True))
            old = scaled({t: unlike[t] for t in tokens if P <= t < since * P})
            scores = {f: plain_score(ADDED[layer, f, stream]) for f in range(frame + 1)}
            new = scaled({t: scores[t // P][t % P] for t in tokens if t >= since * P})
            ranking = {t: (1 - policy.importance_weight) * s for t, s in old.items()}
            ranking |= {t: policy.importance_weight * s for t, s in new.items()}
            so_far = [jump for jump in JUMPS[stream] if jump <= frame]
            for anchor in so_far[max(len(so_far) - policy.anchors, 0) :]:
                best = np.argsort(-scores[anchor])[: math.ceil(policy.anchor_token_ratio * P)]
                ranking |= {int(anchor * P + t): 2.0 for t in best if anchor * P + t in tokens}
            kept = sorted(ranking, key=ranking.get, reverse=True)[: (policy.budget_frames - 1) * P]
            tokens = [*range(P), *sorted(kept)]
            since = frame + 1
        history.append(set(tokens))
    return history


@pytest.mark.parametrize(
    "policy",
    [
        SelfSelective(3, 1),
        SelfSelective(2, 2, importance_weight=0.7, anchor_token_ratio=0.2),
        SelfSelective(2, 2, anchors=1, anchor_token_ratio=0.2),
        SelfSelective(3, 2, anchors=0),
    ],
    ids=repr,
)
def test_the_choice_is_the_plain_rule(policy):
    layers, policy_state = new_layers(policy), {}
    expected = {(layer, b): plainly(policy, layer, b) for layer in range(LAYERS) for b in range(B)}
    for frame in range(NUM_FRAMES):
        for layer, cache in enumerate(layers):
            policy.on_mlp_output(layer, torch.from_numpy(ADDED[layer, frame]), policy_state)
            come(cache, layer, frame)
        policy.prune(PolicyContext(output(frame), layers, policy_state))
        for (layer, b), history in expected.items():
            for n in range(N):
                assert held(layers[layer], b, n) == history[frame], (frame, layer, b, n)
    assert policy_state["num_anchors"].tolist() == [5, 1]
    assert len(layers[0]) < (policy.budget_frames + policy.slack_frames) * P


def test_anchors_change_what_stays():
    """Otherwise the rule above would have been tested without."""
    with_anchors, without = (plainly(SelfSelective(2, 2, anchors=n, anchor_token_ratio=0.3), 0, 0) for n in (3, 0))
    assert with_anchors != without


def test_smoothing_by_hand():
    score = torch.zeros(1, 5 + 12, dtype=torch.float64)
    score[0, 2] = 7
    score[0, 5 + 5] = 16  # row 1, column 1 of 3 × 4
    expected = torch.tensor([[1.0, 2, 1, 0], [2, 4, 2, 0], [1, 2, 1, 0]]).double() / 2
    expected[1, 1] += 8
    found = smooth_scores(score, (42, 56))[0]
    assert torch.equal(found[5:].view(3, 4), expected)
    assert found[:5].tolist() == [0, 0, 7, 0, 0]


def test_what_does_not_fit_is_rejected():
    with pytest.raises(ValueError, match="do not fit into budget_frames=2"):
        SelfSelective(2, anchors=3, anchor_token_ratio=0.5)
    with pytest.raises(ValueError, match="importance_weight must be between 0 and 1, not 2"):
        SelfSelective(importance_weight=2)
