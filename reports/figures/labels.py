"""Place labels in a crowded plot: near their points, on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Costs per pixel of overlap area, per crossed label or leader, and per pixel of distance.
_OVERLAP, _CROSSING, _DISTANCE = 50.0, 400.0, 1.0
_GAP = 3.0
_PASSES = 30


def place(points: Any, sizes: Any, obstacles: Any, bounds: Sequence[float], reach: float = 150.0) -> np.ndarray:
    """Return boxes [N, 4] (left, bottom, right, top) for labels of `sizes` [N, 2] at `points` [N, 2], in pixels.

    Labels keep clear of each other, of the `obstacles` [M, 4], and inside `bounds`, as near to their points as that
    allows; the line from a point to its label avoids other labels. Deterministic.
    """
    points, sizes = np.asarray(points, float).reshape(-1, 2), np.asarray(sizes, float).reshape(-1, 2)
    obstacles = np.asarray(obstacles, float).reshape(-1, 4)
    candidates = [_candidates(point, size, reach) for point, size in zip(points, sizes, strict=True)]
    fixed = [
        _outside(boxes, bounds)
        + _OVERLAP * _overlap(boxes, obstacles).sum(1)
        + _DISTANCE * np.hypot(*(nearest(point, boxes) - point).T)
        for point, boxes in zip(points, candidates, strict=True)
    ]
    chosen = np.array([boxes[cost.argmin()] for boxes, cost in zip(candidates, fixed, strict=True)]).reshape(-1, 4)
    # The most crowded choose last, when the others have settled; then everyone reconsiders until nobody moves.
    order = np.argsort(-points[:, 1], kind="stable")
    for _ in range(_PASSES):
        moved = False
        for index in order:
            other_boxes = np.delete(chosen, index, axis=0)
            ends = nearest(points[index], candidates[index])
            other_points = np.delete(points, index, axis=0)
            cost = (
                fixed[index]
                + _OVERLAP * _overlap(candidates[index], other_boxes).sum(1)
                + _CROSSING * _crossings(points[index], ends, other_boxes)
                + _CROSSING * _leader_crossings(points[index], ends, other_points, _ends(other_points, other_boxes))
            )
            best = candidates[index][cost.argmin()]
            if not np.array_equal(best, chosen[index]):
                chosen[index] = best
                moved = True
        if not moved:
            break
    return chosen


def spread_out(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Return heights in the order of `wanted` (rising), near it, `step` apart at least, within the bounds if they fit.

    Neighbours that are too close become one block around the mean of what they want (pool adjacent violators).
    """
    blocks: list[tuple[float, int]] = []  # the height of the first of a block, and how many it has
    for height in wanted:
        blocks.append((height, 1))
        while len(blocks) > 1 and blocks[-2][0] + blocks[-2][1] * step > blocks[-1][0]:
            (first, one), (second, two) = blocks[-2:]
            centre = (first * one + (second - one * step) * two) / (one + two)
            blocks[-2:] = [(centre, one + two)]
    heights = [first + step * index for first, count in blocks for index in range(count)]
    if heights and heights[-1] > high:
        for index in range(len(heights) - 1, -1, -1):
            heights[index] = min(heights[index], high - step * (len(heights) - 1 - index))
    if heights and heights[0] < low:
        for index in range(len(heights)):
            heights[index] = max(heights[index], low + step * index)
    return heights


def nearest(point: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the point of each box [..., 4] that is nearest to `point`, where a line to its label ends."""
    return np.stack(
        [np.clip(point[0], boxes[..., 0], boxes[..., 2]), np.clip(point[1], boxes[..., 1], boxes[..., 3])], -1
    )


def _ends(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return np.array([nearest(point, box) for point, box in zip(points, boxes, strict=True)]).reshape(-1, 2)


def _candidates(point: np.ndarray, size: np.ndarray, reach: float) -> np.ndarray:
    """Return boxes around a point in 24 directions and growing distance, the near ones first."""
    angles = np.arange(24) * np.pi / 12
    radii = np.concatenate([[7.0, 11.0], np.arange(18.0, reach, 9.0)])
    radius, angle = (each.ravel() for each in np.meshgrid(radii, angles, indexing="ij"))
    # The box touches the ring with the side that faces the point.
    centre = point + np.stack([np.cos(angle), np.sin(angle)], 1) * (radius[:, None] + size / 2)
    return np.concatenate([centre - size / 2, centre + size / 2], 1)


def _overlap(boxes: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """Return the overlap areas [len(boxes), len(obstacles)], with a gap around each box."""
    width = np.minimum(boxes[:, None, 2], obstacles[None, :, 2]) - np.maximum(boxes[:, None, 0], obstacles[None, :, 0])
    height = np.minimum(boxes[:, None, 3], obstacles[None, :, 3]) - np.maximum(boxes[:, None, 1], obstacles[None, :, 1])
    areas: np.ndarray = np.clip(width + _GAP, 0, None) * np.clip(height + _GAP, 0, None)
    return areas


def _outside(boxes: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    left, bottom, right, top = bounds
    beyond = np.stack([left - boxes[:, 0], bottom - boxes[:, 1], boxes[:, 2] - right, boxes[:, 3] - top])
    costs: np.ndarray = 1e6 * np.clip(beyond, 0, None).sum(0)
    return costs


def _crossings(point: np.ndarray, ends: np.ndarray, other_boxes: np.ndarray) -> np.ndarray:
    """Return how many of the other boxes each line from the point to its end passes."""
    steps = np.linspace(0.1, 1, 12)
    along = point + (ends[:, None, :] - point) * steps[None, :, None]
    x, y = along[..., 0][:, :, None], along[..., 1][:, :, None]
    inside = (
        (x > other_boxes[:, 0] - 1)
        & (x < other_boxes[:, 2] + 1)
        & (y > other_boxes[:, 1] - 1)
        & (y < other_boxes[:, 3] + 1)
    )
    crossings: np.ndarray = inside.any(1).sum(1)
    return crossings


def _leader_crossings(
    point: np.ndarray, ends: np.ndarray, other_points: np.ndarray, other_ends: np.ndarray
) -> np.ndarray:
    """Return how many other lines each line from the point to its end crosses."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        turns: np.ndarray = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
            c[..., 0] - a[..., 0]
        )
        return turns

    a, b = np.broadcast_to(point, ends.shape)[:, None, :], ends[:, None, :]
    c, d = other_points[None], other_ends[None]
    crossings: np.ndarray = ((side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)).sum(1)
    return crossings
