"""Draw the ways of a policy through the multi-goal world or a maze as a moving picture (SVG).

    python docs/ways.py runs/soft_q/... docs/pictures/multigoal_ways.svg

Episodes run side by side in a loop, coloured by the goal that they reach. The picture has no
background, so that it can be read on light and on dark pages.
"""

from __future__ import annotations

import argparse
from itertools import cycle
from pathlib import Path

from torchrl_stein.envs import GoalMazeWorld, MultiGoalEnv
from torchrl_stein.runs import evaluate, load_loss
from torchrl_stein.runs.tasks import goal_maze_of

COLOURS = ("#4269d0", "#d1603d", "#3a9d5d", "#a463f2", "#c99a1b", "#2aa7b8", "#d65c9f", "#7a5c3e")
GREY = "#8a8d94"
WIDTH = 480  # pixels
SECONDS = 4  # of a loop; the ways take four fifths of it


def ways_svg(
    tracks: list[list[tuple[float, float]]],
    reached: list[int],
    goals: list[tuple[float, float]],
    walls: list[tuple[float, float, float, float]],
    extent: tuple[float, float, float, float],
    radius: float,
) -> str:
    """The text of the picture.

    Args:
        tracks: positions of each episode, in metres.
        reached: its goal, or -1.
        goals: their middles.
        walls: left, right, bottom and top of each.
        extent: left, right, bottom and top of the picture.
        radius: a goal is reached within this distance.
    """
    left, right, bottom, top = extent
    scale = WIDTH / (right - left)
    height = (top - bottom) * scale
    longest = max(map(len, tracks)) - 1
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}">']
    for x0, x1, y0, y1 in walls:
        place = f'x="{(x0 - left) * scale:.1f}" y="{(top - y1) * scale:.1f}"'
        size = f'width="{(x1 - x0) * scale:.1f}" height="{(y1 - y0) * scale:.1f}"'
        parts.append(f'<rect {place} {size} fill="{GREY}"/>')
    for (x, y), colour in zip(goals, cycle(COLOURS)):
        place = f'cx="{(x - left) * scale:.1f}" cy="{(top - y) * scale:.1f}"'
        place += f' r="{radius * scale:.1f}"'
        parts.append(f'<circle {place} fill="{colour}" fill-opacity="0.3" stroke="{colour}"/>')
    for track, goal in zip(tracks, reached, strict=True):
        colour = COLOURS[goal % len(COLOURS)] if goal >= 0 else GREY
        points = [f"{(x - left) * scale:.1f} {(top - y) * scale:.1f}" for x, y in track]
        # Each step takes the same time in all episodes; at the end of its way a point waits.
        end = 0.8 * (len(track) - 1) / longest
        timing = f'keyTimes="0;{end:.3f};1" dur="{SECONDS}s" repeatCount="indefinite"'
        parts += [
            f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" pathLength="1"',
            ' stroke-opacity="0.6" stroke-dasharray="1">',
            f'<animate attributeName="stroke-dashoffset" values="1;0;0" {timing}/></path>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Play a run's policy and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="its directory")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--episodes", type=int, default=60)
    given = parser.parse_args()
    loss, settings = load_loss(given.run)
    _, played = evaluate(loss.actor_network, settings, episodes=given.episodes, seed=0)
    episodes = played.row(0) if settings.leading else played
    maze = goal_maze_of(settings.env)
    if maze is None:
        world = MultiGoalEnv((1,)).world
        goals, walls, radius = world.goals, [], world.goal_threshold
        limit = 1.2 * max(abs(place) for goal in goals for place in goal)
        extent = (-limit, limit, -limit, limit)
    else:
        world = GoalMazeWorld(maze)
        goals, walls, extent, radius = maze.goals, maze.walls, maze.extent, 0.5
    reached = world.goal_reached(episodes.last()).tolist()
    starts = episodes.data["observation"][:, :1, :2].tolist()
    after = episodes.data["next", "observation"][..., :2].tolist()
    lengths = episodes.lengths.tolist()
    tracks = [[*s, *a[:length]] for s, a, length in zip(starts, after, lengths, strict=True)]
    given.picture.write_text(ways_svg(tracks, reached, goals, walls, extent, radius))
    print(f"Picture: {given.picture}")


if __name__ == "__main__":
    main()
