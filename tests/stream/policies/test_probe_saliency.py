"""Probe saliency against the plain rule, token by token."""

import numpy as np
import pytest
import torch
from token_streams import KEYS, LAYERS, VALUES, B, D, N, P, come, held, new_layers

from streamvggt import ProbeSaliency
from streamvggt.model.eviction import PolicyContext
from streamvggt.stream.policies.probe_saliency import probe_queries, saliency

NUM_FRAMES = 14
QUERIES = np.random.RandomState(10).standard_normal((LAYERS, NUM_FRAMES, B, N, P, D))


def plain_saliency(q: np.ndarray, keys: np.ndarray, values: np.ndarray) -> list[float]:
    """What tokens mean to one query. (D), (T, D), (T, D)"""
    logits = [float(q @ key) / np.sqrt(D) for key in keys]
    total = sum(map(np.exp, logits))
    A = [np.exp(logit) / total for logit in logits]
    o = sum(a * value for a, value in zip(A, values, strict=True))
    of_tokens = []
    for a, logit, v in zip(A, logits, values, strict=True):
        of_value = a * np.abs(v).sum()
        of_key = (a * logit) ** 2 * ((v - o) ** 2).sum() + 2 * a**2 * logit * ((v**2).sum() - v @ o)
        of_tokens.append(of_value + of_key)
    return of_tokens


def plainly(policy: ProbeSaliency, layer: int, stream: int, head: int) -> list[set[int]]:
    """The rule, of one head: the tokens held after each frame."""
    score: dict[int, float] = {}
    history = []
    for frame in range(NUM_FRAMES):
        score |= dict.fromkeys(range(frame * P, (frame + 1) * P), 0.0)
        tokens = list(score)
        keys, values = KEYS[layer, stream, head, tokens], VALUES[layer, stream, head, tokens]
        asking = [0, 1, 2, 3, 4, *{4: (5, 6, 7, 8), 2: (6, 8), 0: ()}[policy.num_patches]]
        for query in asking:
            told = plain_saliency(QUERIES[layer, frame, stream, head, query], keys, values)
            score = {token: score[token] + more for token, more in zip(tokens, told, strict=True)}
        if len(score) + P > (policy.budget_frames + policy.slack_frames) * P:
            best = sorted((t for t in score if t >= P), key=score.get, reverse=True)[: (policy.budget_frames - 1) * P]
            score = {t: score[t] for t in sorted({*range(P), *best})}
        history.append(set(score))
    return history


@pytest.mark.parametrize("policy", [ProbeSaliency(3, 1, 4), ProbeSaliency(2, 3, 2), ProbeSaliency(2, 2, 0)], ids=repr)
def test_the_choice_is_the_plain_rule(policy):
    layers, policy_state = new_layers(policy), {}
    heads = [(layer, b, n) for layer in range(LAYERS) for b in range(B) for n in range(N)]
    expected = {head: plainly(policy, *head) for head in heads}
    for frame in range(NUM_FRAMES):
        for layer, cache in enumerate(layers):
            come(cache, layer, frame)
            policy.on_queries(layer, torch.from_numpy(QUERIES[layer, frame]), cache, policy_state)
        policy.prune(PolicyContext(None, layers, policy_state))
        for (layer, b, n), history in expected.items():
            assert held(layers[layer], b, n) == history[frame], (frame, layer, b, n)
    assert len({frozenset(history[-1]) for history in expected.values()}) == len(heads), "heads choose for themselves"


def test_probes_by_hand():
    numbered = torch.arange(5 + 80).view(1, 1, -1, 1)
    assert probe_queries(numbered, 8).flatten().tolist() == [0, 1, 2, 3, 4, *range(10, 85, 10)]
    assert probe_queries(numbered, 0).flatten().tolist() == [0, 1, 2, 3, 4]
    assert probe_queries(numbered, 200).flatten().tolist() == list(range(85))


def test_the_value_score_by_hand():
    """A query that is the same to all keys sees the mean of the values."""
    k, v = torch.randn(1, 1, 4, 3), torch.tensor([[1.0, 0, 0], [0, -2, 0], [0, 0, 3], [2, 2, 0]])[None, None]
    assert saliency(torch.zeros(1, 1, 2, 3), k, v)[0, 0].tolist() == pytest.approx([0.5, 1, 1.5, 2])
