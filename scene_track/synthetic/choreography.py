"""Choreography of a dance: skeletons in 3-D, formations that permute, a camera that pans.

Everything about one sequence comes from one random generator before the first pixel is drawn, so a
sequence depends on its seed alone. Dancers share one choreography (the poses of a beat, the sway,
the formations) and differ by a little delay, amplitude, mirroring and height: association has to
rely on motion and on slight differences of looks, as in DanceTrack.

Coordinates: world and camera frames are metres; the world has x right, y up, z away from the
camera, the camera frame x right, y *down*, z forward. Shape vocabulary: S instants, N dancers, J
joints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scene_track.synthetic.drawing import Array, smoothstep

# Joint order of `Dance.joints`.
PELVIS, CHEST, NECK, HEAD = 0, 1, 2, 3
SHOULDERS, ELBOWS, HANDS = (4, 5), (6, 7), (8, 9)
HIPS, KNEES, ANKLES, TOES = (10, 11), (12, 13), (14, 15), (16, 17)
NUM_JOINTS = 18

_MAX_WALK = 4.6  # metres per second, average of a walk between formations

# Pose vector: one row per key frame. Angles in degrees; (low, high) per entry.
_POSE_RANGES = {
    "arm_out": (4.0, 145.0),
    "arm_forward": (-35.0, 80.0),
    "elbow": (0.0, 120.0),
    "leg_out": (2.0, 24.0),
    "leg_forward": (-20.0, 40.0),
    "knee": (0.0, 60.0),
}
_COMMON_RANGES = {"lean": (-18.0, 18.0), "bow": (-4.0, 22.0), "yaw": (-65.0, 65.0)}


@dataclass(frozen=True)
class Stage:
    """The camera and the room.

    Attributes:
        width: image width in pixels.
        height: image height in pixels.
        focal: focal length in pixels.
        horizon: image row of the horizon, pixels.
        camera_height: metres above the floor.
    """

    width: int
    height: int
    focal: float
    horizon: float
    camera_height: float

    def project(self, points: Array) -> Array:
        """Camera-frame points ``[..., 3]`` (metres) to pixels ``[..., 2]``."""
        depth = np.maximum(points[..., 2], 0.5)
        column = self.width / 2 + self.focal * points[..., 0] / depth
        row = self.horizon + self.focal * points[..., 1] / depth
        return np.stack((column, row), axis=-1)


@dataclass(frozen=True)
class Dance:
    """One sequence at S instants.

    Attributes:
        stage: camera and room.
        joints: ``[S, N, J, 3]`` metres in the camera frame.
        pan: ``[S]`` camera yaw in radians, positive to the right.
    """

    stage: Stage
    joints: Array
    pan: Array


def _formation(rng: np.random.Generator, count: int) -> Array:
    """``[count, 2]`` floor slots (x, z) in metres, centred on (0, 0)."""
    i = np.arange(count) - (count - 1) / 2
    gap = rng.uniform(1.35, 1.65) * min(1.0, 7.2 / count)
    kind = rng.integers(6)
    if kind == 0:  # line
        slots = np.stack((i * gap * 1.2, 0.15 * i), axis=1)
    elif kind == 1:  # two staggered rows: the back row looks through, and past, the front row
        row = np.arange(count) % 2
        slots = np.stack((i * gap * 0.95, (row - 0.5) * 1.6), axis=1)
    elif kind == 2:  # wedge
        slots = np.stack((i * gap, np.abs(i) * 0.6 - 0.6), axis=1)
    elif kind == 3:  # circle
        angle = 2 * np.pi * np.arange(count) / count + rng.uniform(0, 2 * np.pi)
        radius = 0.42 * count * gap
        slots = np.stack((radius * np.cos(angle), 0.8 * radius * np.sin(angle)), axis=1)
    elif kind == 4:  # diagonal
        slots = np.stack((i * gap * 0.9, i * rng.choice((-0.5, 0.5))), axis=1)
    else:  # cluster
        slots = rng.uniform((-0.3, -1.2), (0.3, 1.2), (count, 2))
        slots[:, 0] += i * gap * 1.05
    slots[:, 0] += rng.uniform(-0.7, 0.7)
    slots[:, 1] = np.clip(slots[:, 1], -1.4, 1.4)
    return slots.astype(np.float64)


def _floor_paths(rng: np.random.Generator, times: Array, count: int, pace: float) -> Array:
    """``[S, N, 2]`` positions on the floor: formations, walks between them, exits and returns."""
    position = np.zeros((len(times), count, 2))
    now, end = float(times.min()) - 1.0, float(times.max()) + 1.0
    away = np.zeros(count, dtype=bool)
    if count > 3 and rng.random() < 0.6:
        away[rng.integers(count)] = True
    order = rng.permutation(count)

    def slots_now() -> Array:
        nonlocal order
        if rng.random() < 0.25:
            order = rng.permutation(count)
        else:  # two dancers change places
            pair = rng.permutation(count)[:2]
            order[pair] = order[pair[::-1]]
        slots = _formation(rng, count)
        slots = slots[np.argsort(slots[:, 0])][order]
        side = np.where(slots[:, 0] >= 0, 1.0, -1.0)
        slots[away, 0] = (side * rng.uniform(6.2, 7.0, count))[away]
        return slots

    current = slots_now()
    while now < end:
        # At most two are away at once, and come back after a phase or two.
        for dancer in range(count):
            if away[dancer]:
                away[dancer] = rng.random() < 0.45
            elif away.sum() < min(2, count - 3):
                away[dancer] = rng.random() < 0.2
        # The speed is limited to that of a running person: a long way takes several phases.
        way = slots_now() - current
        far = np.linalg.norm(way, axis=1)
        walk = max(rng.uniform(0.6, 1.2) / pace, float(np.median(far)) / _MAX_WALK)
        duration = walk + rng.uniform(0.3, 1.0)
        way *= np.minimum(1.0, _MAX_WALK * walk / np.maximum(far, 1e-9))[:, None]
        following = current + way
        inside = (times >= now) & (times < now + duration)
        mix = smoothstep((times[inside] - now) / walk)[:, None, None]
        position[inside] = current * (1 - mix) + following * mix
        current, now = following, now + duration
    beat = rng.uniform(1.0, 1.5) * pace
    phase = rng.uniform(0, 2 * np.pi)
    mirror = rng.choice((-1.0, 1.0), count, p=(0.12, 0.88))
    personal = rng.normal(0, 0.2, count)
    swing = 2 * np.pi * beat * times[:, None] + phase + personal
    reach = rng.uniform(0.34, 0.52) * rng.uniform(0.85, 1.15, count)
    position[..., 0] += mirror * reach * np.sin(swing)
    position[..., 1] += 0.12 * np.sin(0.5 * swing + phase)
    return position


def _poses(rng: np.random.Generator, times: Array, count: int, pace: float) -> dict[str, Array]:
    """Pose angles in radians: sided ones ``[S, N, 2]``, common ones ``[S, N]``."""
    step = rng.uniform(0.32, 0.5) / pace
    start = float(times.min()) - 2.0
    keys = int(np.ceil((float(times.max()) + 2.0 - start) / step)) + 3
    library_size = rng.integers(6, 10)
    order = rng.integers(0, library_size, keys)
    sided = {k: rng.uniform(*v, (library_size, 2))[order] for k, v in _POSE_RANGES.items()}
    # Arms hang more often than they are spread: spread arms make wide boxes.
    low, high = _POSE_RANGES["arm_out"]
    sided["arm_out"] = low + (sided["arm_out"] - low) ** 1.7 / (high - low) ** 0.7
    common = {k: rng.uniform(*v, library_size)[order] for k, v in _COMMON_RANGES.items()}
    jumps = rng.random(library_size) < 0.25
    jump = np.where(jumps, rng.uniform(0.1, 0.3, library_size), 0.0)[order]
    # A few full turns; a turn stays in all later angles.
    turns = np.cumsum(np.where(rng.random(keys) < 0.08, rng.choice((-360.0, 360.0), keys), 0.0))
    common["yaw"] = common["yaw"] + turns

    delay = np.where(rng.random(count) < 0.4, 0.0, rng.uniform(0.0, 0.15, count))
    amplitude = rng.uniform(0.85, 1.12, count)
    mirrored = rng.random(count) < 0.3
    wobble_rate = rng.uniform(0.3, 0.8, (count, 3))
    wobble_phase = rng.uniform(0, 2 * np.pi, (count, 3))

    place = (times[:, None] - delay[None] - start) / step  # [S, N]
    index = np.floor(place).astype(int)
    mix = smoothstep(place - index)
    angles: dict[str, Array] = {}
    for number, (name, key) in enumerate(sided.items()):
        value = key[index] * (1 - mix[..., None]) + key[index + 1] * mix[..., None]
        value = np.where(mirrored[:, None], value[..., ::-1], value) * amplitude[:, None]
        rate, phase = wobble_rate[:, number % 3], wobble_phase[:, number % 3]
        wobble = np.sin(2 * np.pi * rate * times[:, None] + phase)
        angles[name] = np.deg2rad(value + 6.0 * wobble[..., None])
    for name, key in common.items():
        value = key[index] * (1 - mix) + key[index + 1] * mix
        sign = np.where(mirrored, -1.0, 1.0) if name in ("lean", "yaw") else 1.0
        angles[name] = np.deg2rad(value * sign)
    hop = jump[index] * np.sin(np.pi * (place - index))
    angles["jump"] = np.maximum(hop, 0.0)
    return angles


def _limb(side: Array, out: Array, forward: Array) -> Array:
    """Unit directions ``[S, N, 2, 3]`` of hanging limbs raised by ``out`` and swung ``forward``."""
    return np.stack(
        (
            side * np.sin(out),
            -np.cos(out) * np.cos(forward),
            np.cos(np.minimum(out, np.pi / 2)) * np.sin(forward),
        ),
        axis=-1,
    )


def _skeleton(angles: dict[str, Array], speed: Array, times: Array, stature: Array) -> Array:
    """Joints ``[S, N, J, 3]`` in the body frame: x to its left, y up from the floor, z ahead.

    ``stature [N]`` is the height as a factor of 1.65 m.
    """
    count = stature.shape[0]
    side = np.array((1.0, -1.0))
    gait = np.clip(speed / 2.0, 0.0, 1.0)[..., None]
    steps = 2 * np.pi * 2.0 * times[:, None, None] + 1.7 * np.arange(count)[None, :, None]
    stride = 0.6 * np.sin(steps)
    leg_forward = angles["leg_forward"] * (1 - 0.7 * gait) + gait * stride * side
    knee = angles["knee"] * (1 - 0.6 * gait) + gait * 0.5 * np.maximum(-stride * side, 0) * 2

    joints = np.zeros((*speed.shape, NUM_JOINTS, 3))
    lean, bow = angles["lean"], angles["bow"]
    spine = np.stack((np.sin(lean), np.cos(lean) * np.cos(bow), np.sin(bow)), axis=-1)
    joints[..., CHEST, :] = 0.40 * spine
    joints[..., NECK, :] = 0.50 * spine
    joints[..., HEAD, :] = 0.66 * spine
    across = np.stack((np.cos(lean), -np.sin(lean), np.zeros_like(lean)), axis=-1)
    thigh = _limb(side, angles["leg_out"], leg_forward)
    shin = _limb(side, angles["leg_out"] * 0.7, leg_forward - knee)
    upper = _limb(side, angles["arm_out"], angles["arm_forward"])
    bend = angles["elbow"]
    fore = _limb(side, angles["arm_out"] + bend * 0.5, angles["arm_forward"] + bend)
    for i in (0, 1):
        joints[..., SHOULDERS[i], :] = 0.44 * spine + side[i] * 0.17 * across
        joints[..., ELBOWS[i], :] = joints[..., SHOULDERS[i], :] + 0.27 * upper[..., i, :]
        joints[..., HANDS[i], :] = joints[..., ELBOWS[i], :] + 0.28 * fore[..., i, :]
        joints[..., HIPS[i], 0] = side[i] * 0.10
        joints[..., KNEES[i], :] = joints[..., HIPS[i], :] + 0.41 * thigh[..., i, :]
        joints[..., ANKLES[i], :] = joints[..., KNEES[i], :] + 0.41 * shin[..., i, :]
        joints[..., TOES[i], :] = joints[..., ANKLES[i], :] + (side[i] * 0.04, -0.03, 0.13)
    lowest = joints[..., 1].min(axis=-1)
    joints[..., 1] -= lowest[..., None] - 0.03  # the lower foot stands on the floor
    joints[..., 1] += angles["jump"][..., None]
    return joints * stature[None, :, None, None]


def choreograph(
    rng: np.random.Generator, times: Array, count: int, width: int, height: int
) -> Dance:
    """Draws a whole dance.

    Args:
        rng: source of every random decision.
        times: ``[S]`` instants in seconds.
        count: number of dancers.
        width: image width in pixels.
        height: image height in pixels.
    """
    stage = Stage(
        width=width,
        height=height,
        focal=1.75 * height * rng.uniform(0.95, 1.05),
        horizon=height * rng.uniform(0.36, 0.46),
        camera_height=rng.uniform(1.3, 1.9),
    )
    pace = rng.uniform(1.15, 1.5)
    stature = rng.uniform(0.95, 1.05, count)
    floor = _floor_paths(rng, times, count, pace)
    velocity = np.gradient(floor, times, axis=0)
    speed = np.linalg.norm(velocity, axis=-1)
    angles = _poses(rng, times, count, pace)
    joints = _skeleton(angles, speed, times, stature)

    # Turn towards where one walks, at most half a right angle, and face the camera otherwise.
    turned = angles["yaw"] + np.clip(velocity[..., 0] / 2.5, -1, 1) * np.pi / 4
    sin, cos = np.sin(turned)[..., None], np.cos(turned)[..., None]
    distance = rng.uniform(7.2, 8.2)
    world = np.empty_like(joints)
    world[..., 0] = joints[..., 0] * cos + joints[..., 2] * sin + floor[..., 0, None]
    world[..., 1] = joints[..., 1]
    world[..., 2] = joints[..., 0] * sin - joints[..., 2] * cos + floor[..., 1, None] + distance

    pan = np.zeros_like(times)
    for rate, size in ((0.12, 0.09), (0.4, 0.035), (1.3, 0.006)):
        swing = size * rng.uniform(0.5, 1.2)
        turns = 2 * np.pi * rate * rng.uniform(0.8, 1.25) * times
        pan += swing * np.sin(turns + rng.uniform(0, 2 * np.pi))
    s, c = np.sin(pan)[:, None, None], np.cos(pan)[:, None, None]
    camera = np.empty_like(world)
    camera[..., 0] = world[..., 0] * c - world[..., 2] * s
    camera[..., 1] = stage.camera_height - world[..., 1]
    camera[..., 2] = world[..., 0] * s + world[..., 2] * c
    return Dance(stage=stage, joints=camera, pan=pan)
