"""A tennis rally: the ball's flight, bounces and strokes, and where the players run.

Everything follows from one random generator before the first pixel is drawn. The ball flies in
pieces of constant acceleration: gravity, raised by topspin and lowered by slice, and a sideways
pull as a spinning ball has (Magnus effect). So each piece is solved in closed form: from where it
is struck, through where it shall bounce, high enough over the net.

World frame, metres: x to the right, y up, z away from the camera; the net is the plane z = 0, the
near base line z = -11.885. Shape vocabulary: S instants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from scene_track.synthetic.drawing import Array, smoothstep

HALF_LENGTH, HALF_WIDTH, SINGLES = 11.885, 5.485, 4.115
SERVICE = 6.40
NET_HEIGHT = 0.914
FENCE = 17.5  # of the back walls, from the net
SIDE_FENCE = 9.5
_GRAVITY = 9.81
_FALL = np.array((0.0, -_GRAVITY, 0.0))
_RADIUS = 0.035  # where a ball touches the ground
_BASE = 12.4  # where a player waits, from the net
_RUN_OUT = 1.2  # seconds that a dead ball stays on court


@dataclass(frozen=True)
class Piece:
    """Flight of constant acceleration from ``start`` to ``end`` (seconds)."""

    start: float
    end: float
    position: Array
    velocity: Array
    acceleration: Array

    def at(self, times: Array) -> Array:
        """``[S, 3]`` positions."""
        t = (times - self.start)[:, None]
        return self.position + self.velocity * t + 0.5 * self.acceleration * t * t

    def position_at(self, time: float) -> Array:
        """``[3]`` metres."""
        return self.at(np.array([time]))[0]

    def velocity_at(self, time: float) -> Array:
        """``[3]`` metres per second."""
        return self.velocity + self.acceleration * (time - self.start)


@dataclass(frozen=True)
class Stroke:
    """A player (``side`` -1 near, 1 far) hits the ball at ``time`` (seconds), ``position [3]``."""

    time: float
    side: int
    position: Array


@dataclass
class Rally:
    """What happens between two times.

    Attributes:
        pieces: of the ball's flight, in order; between them, before and after there is no ball.
        strokes: in order.
        bounces: times at which the ball touches the ground.
    """

    pieces: list[Piece] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    bounces: list[float] = field(default_factory=list)

    def ball(self, times: Array) -> Array:
        """``[S, 3]`` positions; NaN while there is no ball."""
        result = np.full((len(times), 3), np.nan)
        for piece in self.pieces:
            inside = (times >= piece.start) & (times < piece.end)
            result[inside] = piece.at(times[inside])
        return result


def play(rng: np.random.Generator, end: float) -> Rally:
    """A match from time 0 to ``end`` (seconds): rallies, and pauses without a ball."""
    rally = Rally()
    now = -rng.uniform(0.3, 1.5)
    serve = rng.random() < 0.3
    while now < end:
        if serve:
            now = max(now, -0.4) + rng.uniform(0.3, 0.9)
        now = _point(rng, rally, now, end, serve)
        serve = True
    return rally


def _point(rng: np.random.Generator, rally: Rally, now: float, end: float, serve: bool) -> float:
    """One point, up to its end or to ``end``; returns the time at which the ball is gone."""
    side = -1 if rng.random() < 0.5 else 1
    if serve:
        now, position = _toss(rng, rally, now, side)
    else:
        height = rng.uniform(0.6, 1.3)
        position = np.array((rng.uniform(-3.8, 3.8), height, side * rng.uniform(10.5, 13.5)))
    while now < end:
        rally.strokes.append(Stroke(now, side, position))
        piece = _shot(rng, now, position, side, serve)
        if rng.random() < 0.06:
            return _into_net(rng, rally, piece)
        rally.pieces.append(piece)
        rally.bounces.append(piece.end)
        after = _rebound(rng, piece)
        wait = rng.uniform(0.4, 0.8) * (_time_to_ground(after) - after.start)
        # A long ball is taken on the rise, before it reaches the wall.
        room = rng.uniform(12.5, 14.5) - abs(after.position[2])
        wait = min(wait, room / abs(after.velocity[2]))
        reply = after.start + wait
        if wait < 0.1 or rng.random() < 0.1:
            return _run_out(rally, after)
        rally.pieces.append(replace(after, end=reply))
        now, position, side, serve = reply, after.position_at(reply), -side, False
    return now


def _toss(rng: np.random.Generator, rally: Rally, now: float, side: int) -> tuple[float, Array]:
    """The ball goes up from the server's hand; returns when and where it is struck."""
    start = np.array((rng.uniform(-3.0, 3.0), 1.2, side * (HALF_LENGTH + 0.2)))
    velocity = np.array((0.0, rng.uniform(6.2, 6.8), -side * 0.5))
    # Struck on the way down, at 2.7 m.
    drop = velocity[1] ** 2 - 2 * _GRAVITY * (2.7 - start[1])
    struck = now + (velocity[1] + math.sqrt(max(drop, 0.0))) / _GRAVITY
    piece = Piece(now, struck, start, velocity, _FALL)
    rally.pieces.append(piece)
    return struck, piece.position_at(struck)


def _shot(rng: np.random.Generator, now: float, position: Array, side: int, serve: bool) -> Piece:
    """A stroke that clears the net and bounces on the other side."""
    kind = 0.0 if serve else rng.random()
    speed = rng.uniform(20.0, 30.0)
    pull = np.array((rng.normal(0, 2.0), -_GRAVITY * rng.uniform(1.0, 1.5), 0.0))
    deep = (6.5, 11.0)
    if serve:
        speed, deep = rng.uniform(32.0, 45.0), (4.5, 6.2)
    elif kind > 0.85:  # lob
        speed, pull[1], deep = rng.uniform(9.0, 12.0), -_GRAVITY, (9.0, 11.5)
    elif kind > 0.65:  # slice
        speed, pull[1] = rng.uniform(15.0, 20.0), -_GRAVITY * rng.uniform(0.7, 0.9)
    target = np.array((rng.uniform(-3.7, 3.7), _RADIUS, -side * rng.uniform(*deep)))
    duration = float(np.linalg.norm(target - position)) / speed
    while True:
        velocity = (target - position) / duration - 0.5 * pull * duration
        piece = Piece(now, now + duration, position, velocity, pull)
        crossing = now - position[2] / velocity[2]
        if piece.position_at(crossing)[1] > NET_HEIGHT + 0.2:
            return piece
        duration *= 1.06  # slower is higher


def _rebound(rng: np.random.Generator, piece: Piece) -> Piece:
    """The flight after the bounce that ends a piece; its end is left open."""
    position = piece.position_at(piece.end)
    velocity = piece.velocity_at(piece.end) * (rng.uniform(0.7, 0.85), -rng.uniform(0.7, 0.82), 0.0)
    velocity[2] = piece.velocity_at(piece.end)[2] * rng.uniform(0.6, 0.8)
    velocity[1] = max(velocity[1], 2.5)
    pull = np.array((0.5 * piece.acceleration[0], -_GRAVITY, 0.0))
    return Piece(piece.end, math.inf, position, velocity, pull)


def _time_to_ground(piece: Piece) -> float:
    """When a piece comes down to the ground."""
    fall, rise = -piece.acceleration[1], piece.velocity[1]
    height = max(piece.position[1] - _RADIUS, 0.0)
    return piece.start + (rise + math.sqrt(rise * rise + 2 * fall * height)) / fall


def _into_net(rng: np.random.Generator, rally: Rally, piece: Piece) -> float:
    """The same stroke, too low: the ball falls at the net."""
    crossing = piece.start - piece.position[2] / piece.velocity[2]
    side = 1 if piece.position[2] > 0 else -1
    height = rng.uniform(0.3, 0.8)
    duration = crossing - piece.start
    target = np.array((piece.position_at(crossing)[0], height, side * 0.06))
    velocity = (target - piece.position) / duration - 0.5 * piece.acceleration * duration
    rally.pieces.append(replace(piece, end=crossing, velocity=velocity))
    back = np.array((0.2 * velocity[0], 0.5, side * rng.uniform(0.3, 1.0)))
    return _run_out(rally, Piece(crossing, math.inf, target, back, _FALL))


def _run_out(rally: Rally, piece: Piece) -> float:
    """A dead ball bounces on, off the walls too, and is gone after a while."""
    gone = piece.start + _RUN_OUT
    while piece.start < gone:
        ground, wall = _time_to_ground(piece), _time_to_wall(piece)
        stop = min(ground, wall, gone)
        # A ball that hardly leaves the ground would bounce for ever.
        stop = max(stop, piece.start + 0.04)
        rally.pieces.append(replace(piece, end=stop))
        position, velocity = piece.position_at(stop), piece.velocity_at(stop)
        position[1] = max(position[1], _RADIUS)
        if stop == wall:
            velocity = velocity * (0.6, 0.8, -0.35)
        elif stop < gone:
            rally.bounces.append(stop)
            velocity = velocity * (0.8, -0.7, 0.8)
        piece = Piece(stop, math.inf, position, velocity, _FALL)
    return gone


def _time_to_wall(piece: Piece) -> float:
    """When a piece reaches the wall that it flies towards; infinity if never."""
    speed = piece.velocity[2]
    way = math.copysign(FENCE, speed) - piece.position[2]
    return piece.start + way / speed if abs(speed) > 1e-6 and way * speed > 0 else math.inf


@dataclass(frozen=True)
class Player:
    """Where a player is at S instants.

    Attributes:
        side: -1 near, 1 far.
        place: ``[S, 2]`` x and z of the feet.
        stride: ``[S]`` phase of the legs in radians.
        swing: ``[S]`` phase of the stroke: -1 drawn back, 0 contact, 1 followed through; NaN while
            waiting.
        reach: ``[S]`` 1 or -1, the side on which the racket is.
    """

    side: int
    place: Array
    stride: Array
    swing: Array
    reach: Array


def run(rng: np.random.Generator, rally: Rally, side: int, times: Array) -> Player:
    """The movement of one player through the strokes of a rally."""
    mine = [stroke for stroke in rally.strokes if stroke.side == side]
    reach = [1.0 if rng.random() < 0.65 else -1.0 for _ in mine]
    keys = [(float(times[0]) - 3.0, rng.uniform(-2.0, 2.0), side * _BASE)]
    for stroke, hand in zip(mine, reach, strict=True):
        x, _, z = stroke.position
        # Now and then a ball is struck from the body, which hides it from behind.
        away = rng.uniform(0.0, 0.2) if rng.random() < 0.5 else rng.uniform(0.4, 0.85)
        keys.append((stroke.time, x - hand * away, z + side * 0.4))
        keys.append((stroke.time + 1.1, 0.5 * x + rng.normal(0, 0.5), side * _BASE))
    keys.append((float(times[-1]) + 3.0, rng.uniform(-2.0, 2.0), side * _BASE))
    keys.sort()
    place = np.stack([_ease(times, keys, column) for column in (1, 2)], axis=1)
    way = np.linalg.norm(np.diff(place, axis=0, prepend=place[:1]), axis=1)
    swing = np.full(len(times), np.nan)
    hands = np.ones(len(times))
    for stroke, hand in zip(mine, reach, strict=True):
        phase = (times - stroke.time) / 0.3
        near = np.abs(phase) <= 1
        swing[near] = phase[near]
        hands[np.abs(phase) <= 3] = hand
    return Player(side, place, 4.5 * np.cumsum(way), swing, hands)


def _ease(times: Array, keys: list[tuple[float, float, float]], column: int) -> Array:
    """A smooth path through key positions (time, x, z); ``column`` chooses x or z."""
    when = np.array([key[0] for key in keys])
    where = np.array([key[column] for key in keys])
    index = np.clip(np.searchsorted(when, times, side="right") - 1, 0, len(keys) - 2)
    mix = (times - when[index]) / np.maximum(when[index + 1] - when[index], 1e-6)
    mix = smoothstep(mix)
    return where[index] * (1 - mix) + where[index + 1] * mix
