"""Key diversity against the plain rule, token by token."""

import numpy as np
import pytest
from token_streams import advance, held, new_layers, stored

from streamvggt import TokenDiversity


def plainly(keys: np.ndarray, held: set[int], tokens: int, count: int) -> set[int]:
    """The rule, of one head: the first frame's tokens and the `count` others least like the others' mean."""
    others = sorted(held - set(range(tokens)))
    directions = [keys[token] / np.linalg.norm(keys[token]) for token in others]
    mean = sum(directions) / len(directions)
    order = sorted(range(len(others)), key=lambda i: float(directions[i] @ mean))
    return set(range(tokens)) | {others[i] for i in order[:count]}


@pytest.mark.parametrize("slack", [1, 3])
def test_the_choice_is_the_plain_rule(slack):
    policy = TokenDiversity(3, slack)
    layers, policy_state = new_layers(policy), {}
    expected = None
    for frame in range(14):
        advance(policy, layers, policy_state, frame)
        tokens = layers[0].tokens_per_frame
        come = set(range(frame * tokens, (frame + 1) * tokens))
        expected = [come if expected is None else tokens_held | come for tokens_held in expected or [come] * 8]
        heads = [(layer, b, n) for layer in range(2) for b in range(2) for n in range(2)]
        for i, (layer, b, n) in enumerate(heads):
            share = policy_state["shares"][layer] if "shares" in policy_state else 10**9
            if len(expected[i]) + tokens > share + slack * tokens:
                expected[i] = plainly(stored(layer, b, n), expected[i], tokens, share - tokens)
            assert held(layers[layer], b, n) == expected[i]
    assert len(set(map(frozenset, expected))) == 8, "heads, streams and layers choose for themselves"


def test_diverse_layers_are_given_more():
    policy = TokenDiversity(4, 1)
    layers, policy_state = new_layers(policy), {}
    for frame in range(5):
        advance(policy, layers, policy_state, frame)
    shares, tokens = policy_state["shares"], layers[0].tokens_per_frame
    assert shares[0] > shares[1], "the second layer's keys have a common part"
    assert sum(shares) == pytest.approx(4 * 2 * tokens, abs=2)
    assert min(shares) > tokens
    equal = TokenDiversity(4, 1, temperature=1e9)._layer_budgets(layers)
    assert equal == pytest.approx([4 * tokens] * 2, abs=1)


def test_the_cache_is_not_copied_between_evictions():
    policy = TokenDiversity(3, 3)
    layers, policy_state = new_layers(policy), {}
    places, evictions = set(), 0
    for frame in range(30):
        before = len(layers[0])
        advance(policy, layers, policy_state, frame)
        evictions += len(layers[0]) < before + layers[0].tokens_per_frame
        if frame >= 10:
            places.add(layers[0].buffers()[0][0].data_ptr())
    assert len(places) == 1
    assert evictions == pytest.approx(25 / 3, abs=2)
