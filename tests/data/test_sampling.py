"""Which views a sample has: the rules, and the shares they are drawn with."""

from collections import Counter

import numpy as np
import pytest

from streamvggt.data.decode import DataError
from streamvggt.data.sampling import ClipSampler, CovisibilitySampler, GraphWalkSampler, GroupSampler


class Scene:
    """A source of one scene "s"."""

    def __init__(self, num_frames, runs=None, groups=(), overlap=None):
        self.num_frames, self._runs, self._groups, self._overlap = num_frames, runs, groups, overlap

    def frames(self, scene):
        return [str(number) for number in range(self.num_frames)]

    def segments(self, scene):
        return self._runs or [range(self.num_frames)]

    def groups(self, scene):
        return self._groups

    def overlap(self, scene):
        return self._overlap


def random(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(clips: ClipSampler, length: int, start: int, num_views: int, times: int = 400):
    generator = random()
    return [clips.clip(length, start, num_views, generator) for _ in range(times)]


def test_a_scene_of_just_enough_frames_is_shown_in_order():
    assert drawn(ClipSampler(), 7, 2, 5, 3) == [([2, 3, 4, 5, 6], True)] * 3


@pytest.mark.parametrize(
    ("length", "start", "num_views"), [(40, 3, 5), (12, 0, 10), (500, 100, 8), (6, 1, 4), (9, 2, 1)]
)
def test_clips_are_different_frames_from_the_start_on(length, start, num_views):
    for positions, is_video in drawn(ClipSampler(max_interval=9), length, start, num_views):
        assert len(set(positions)) == num_views
        assert start in positions and min(positions) >= start and max(positions) < length
        assert positions == sorted(positions) or not is_video


def test_shares_and_steps_of_clips_are_those_asked_for():
    """With room for all steps: M = max_interval; videos are evenly spaced as often as fix_prob says, or by chance."""
    clips = drawn(ClipSampler(max_interval=4, video_prob=0.7, fix_interval_prob=0.9), 1000, 0, 6, 4000)
    videos = [np.diff(positions) for positions, is_video in clips if is_video]
    assert len(videos) / len(clips) == pytest.approx(0.7, abs=0.03)
    even = [gaps[0] for gaps in videos if len(set(gaps)) == 1]
    assert len(even) / len(videos) == pytest.approx(0.9 + 0.1 * 4**-4, abs=0.02)
    assert {*Counter(even)} == {1, 2, 3, 4} and min(Counter(even).values()) > 0.2 * len(even)
    uneven = np.concatenate([gaps for gaps in videos if len(set(gaps)) > 1])
    assert set(uneven) == {1, 2, 3, 4}


def test_steps_shrink_with_the_room_that_is_left():
    """M = floor(2·R / (n - 1)): with 20 frames left and 5 steps at most 8, evenly at most 4."""
    clips = drawn(ClipSampler(max_interval=25, video_prob=1, fix_interval_prob=1), 21, 0, 6, 500)
    assert {int(np.diff(positions).max()) for positions, _ in clips} == {1, 2, 3, 4}
    uneven = drawn(ClipSampler(max_interval=25, video_prob=1, fix_interval_prob=0), 21, 0, 6, 2000)
    first = Counter(positions[1] - positions[0] for positions, _ in uneven)
    assert 5 in first and 8 in first


def test_collections_are_shuffled_whole_or_in_blocks():
    whole = [positions for positions, _ in drawn(ClipSampler(max_interval=1, video_prob=0), 100, 0, 6, 600)]
    assert {sorted(p) == [0, 1, 2, 3, 4, 5] for p in whole} == {True}
    assert {p[0] for p in whole} == set(range(6))
    blocks = [
        positions for positions, _ in drawn(ClipSampler(max_interval=1, video_prob=0, block_shuffle=3), 100, 0, 6, 200)
    ]
    assert all(sorted(p[:3]) == [0, 1, 2] and sorted(p[3:]) == [3, 4, 5] for p in blocks)
    assert len({tuple(p) for p in blocks}) > 20


def test_starts_leave_room_for_all_views():
    clips, scene = ClipSampler(), Scene(12)
    assert clips.num_items(scene, "s", 10) == 3
    assert clips.num_items(Scene(9), "s", 10) == 0
    for item in range(3):
        assert min(clips.select_views(scene, "s", item, 10, 10, random()).positions) == item
    two_cameras = Scene(9, runs=[range(0, 5), range(5, 9)])
    assert clips.num_items(two_cameras, "s", 4) == 3
    assert [min(clips.select_views(two_cameras, "s", item, 4, 4, random(1)).positions) for item in range(3)] == [
        0,
        1,
        5,
    ]


def test_short_scenes_repeat_frames_when_allowed():
    clips = ClipSampler(allow_repeat=True)
    assert clips.num_items(Scene(5), "s", 10) == 3  # needs max(10 // 3, 3) frames from the start on
    seen = drawn(clips, 5, 1, 10, 300)
    assert {len(positions) for positions, _ in seen} == {10}
    assert all(min(positions) >= 0 and max(positions) < 5 for positions, _ in seen)
    assert any(is_video for _, is_video in seen) and not all(is_video for _, is_video in seen)


def test_groups_are_shuffled_cut_and_never_repeated():
    groups = [[0, 3, 5, 7], [1, 2], [5, 6, 7, 8, 9]]
    choice = CovisibilitySampler(ClipSampler(), clip_prob=0.0)
    scene = Scene(10, groups=groups)
    assert choice.num_items(scene, "s", 4) == 10 and choice.num_items(scene, "s", 11) == 0
    seen = [choice.select_views(scene, "s", item % 10, 4, 4, random(item)) for item in range(200)]
    assert {tuple(sorted(c.positions)) for c in seen} >= {(0, 3, 5, 7), (5, 6, 7, 8)}
    assert all(set(c.positions) <= set(groups[0]) or set(c.positions) <= set(groups[2]) for c in seen)
    assert not any(c.is_video for c in seen)


def test_clips_come_from_the_run_of_the_groups_camera():
    """The published loader takes the other camera's."""
    groups = [[frame, *(other for other in range(20) if other != frame)] for frame in range(20)]
    scene = Scene(20, runs=[range(0, 10), range(10, 20)], groups=groups)
    choice = CovisibilitySampler(ClipSampler(max_interval=2), clip_prob=1.0)
    for item in range(20):
        positions = choice.select_views(scene, "s", item, 4, 4, random(item)).positions
        assert {position // 10 for position in positions} == {item // 10}


def test_clip_share_and_best_members():
    groups = [list(range(40))]
    scene = Scene(40, groups=groups)
    choice = CovisibilitySampler(ClipSampler(video_prob=1.0), clip_prob=0.7, best_first=True, ordered_prob=0.5)
    generator = random()
    seen = [choice.select_views(scene, "s", 0, 5, 5, generator) for _ in range(2000)]
    assert np.mean([c.is_video for c in seen]) == pytest.approx(0.7 + 0.3 * 0.5, abs=0.03)
    only_groups = CovisibilitySampler(ClipSampler(), clip_prob=0.0, best_first=True)
    tops = [max(only_groups.select_views(scene, "s", 0, 5, 5, generator).positions) for _ in range(500)]
    assert max(tops) < 20 and max(tops) > 15, "of two to four times as many as wanted"


def test_a_scene_without_large_groups_gives_clips():
    choice = CovisibilitySampler(ClipSampler(), clip_prob=0.0)
    assert len(choice.select_views(Scene(9, groups=[[0, 1]]), "s", 3, 4, 4, random()).positions) == 4
    with pytest.raises(DataError, match="no group of 4 overlapping frames"):
        choice.select_views(Scene(9, runs=[range(3), range(3, 6), range(6, 9)], groups=[]), "s", 3, 4, 4, random())


def test_sets_show_different_images():
    scene = Scene(10, groups=[[0, 1, 1, 2, 3, 3], [4, 4, 4]])
    seen = [GroupSampler().select_views(scene, "s", 0, 3, 3, random(seed)).positions for seed in range(100)]
    assert all(len(set(positions)) == 3 and set(positions) <= {0, 1, 2, 3} for positions in seen)
    assert GroupSampler().num_items(scene, "s", 3) == 2
    with pytest.raises(DataError, match="set 1 of s has 1 different images, 3 are wanted"):
        GroupSampler().select_views(scene, "s", 1, 3, 3, random())


def chain(*edges: tuple[int, int, float]):
    return np.array([edge[:2] for edge in edges]).T, np.array([edge[2] for edge in edges])


def test_a_graph_walk_follows_overlap_and_turns_back_at_dead_ends():
    """0 → 1 → 2 ends; the way on is 0 → 3. The edge 2 → 4 shares too little."""
    overlap = chain((0, 1, 0.9), (1, 2, 0.9), (0, 3, 0.3), (2, 4, 0.1))
    scene = Scene(5, overlap=overlap)
    seen = {tuple(GraphWalkSampler().select_views(scene, "s", 0, 4, 4, random(seed)).positions) for seed in range(200)}
    assert seen == {(0, 1, 2, 3), (0, 3, 1, 2)}


def test_a_graph_walk_prefers_what_overlaps_more():
    scene = Scene(3, overlap=chain((0, 1, 0.5), (0, 2, 0.3)))
    first = Counter(
        GraphWalkSampler().select_views(scene, "s", 0, 2, 2, random(seed)).positions[1] for seed in range(2000)
    )
    assert first[1] / 2000 == pytest.approx(0.3 / 0.4, abs=0.03)


def test_a_graph_walk_starts_nearby_where_too_few_can_be_reached_and_ends():
    scene = Scene(6, overlap=chain((3, 4, 0.9), (4, 5, 0.9)))
    assert GraphWalkSampler().select_views(scene, "s", 1, 3, 3, random()).positions == [3, 4, 5]
    with pytest.raises(DataError, match="no 4 frames are connected"):
        GraphWalkSampler().select_views(scene, "s", 1, 4, 4, random())
