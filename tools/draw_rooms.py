"""Draws docs/images/rooms.png: the packages of img2img, and which of them import which.

python tools/draw_rooms.py
"""

import ast
from functools import cache
from pathlib import Path

import tyro
from PIL import Image, ImageDraw, ImageFont

import img2img

FRONT = ("app", "cli", "compression", "demo")
"""What people call, drawn side by side at the top."""
ROOT = Path(img2img.__file__).parent
WIDTH, ROW, BOX = 1000, 92, (150, 46)
FILL, LINE, TEXT = "#e3f2fd", "#90a4ae", "#102027"


def read_rooms() -> dict[str, set[str]]:
    """The packages and modules at the top of img2img, each with those that it imports."""
    needs: dict[str, set[str]] = {}
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).with_suffix("").parts[0]
        if room.startswith("__"):
            continue
        found = needs.setdefault(room, set())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("img2img."):
                found.add(node.module.split(".")[1])
    return {room: found - {room} for room, found in needs.items()}


def place(needs: dict[str, set[str]]) -> dict[str, tuple[int, int]]:
    """The centre of each box: a package lies above all that it imports."""

    @cache
    def height(room: str) -> int:
        return 1 + max((height(other) for other in needs[room]), default=-1)

    top = max(map(height, needs))
    rows: dict[int, list[str]] = {}
    for room in sorted(needs, key=lambda room: (room == "losses", room)):  # where no box hides its arrow
        level = top if room in FRONT else height(room) + (room == "losses")
        rows.setdefault(level, []).append(room)
    centres = {}
    for row, rooms in rows.items():
        for column, room in enumerate(rooms):
            shift = 120 if row % 2 and len(rooms) == 1 else -120 if len(rooms) == 1 and 0 < row < top else 0
            centres[room] = (WIDTH * (2 * column + 1) // (2 * len(rooms)) + shift, (top - row) * ROW + ROW // 2)
    return centres


def main(target: Path = Path("docs/images/rooms.png")) -> None:
    """Draws the rooms; an arrow is left out where a longer way leads along others."""
    needs = read_rooms()

    @cache
    def reaches(room: str) -> frozenset[str]:
        return frozenset(needs[room]).union(*(reaches(other) for other in needs[room]))

    centres = place(needs)
    image = Image.new("RGB", (WIDTH, max(y for _, y in centres.values()) + ROW // 2), "white")
    draw = ImageDraw.Draw(image)
    for room, others in needs.items():
        for other in others.difference(FRONT, *(reaches(near) for near in others.difference(FRONT))):
            (x, y), (to_x, to_y) = centres[room], centres[other]
            end = (to_x + (x - to_x) // 8, to_y - BOX[1] // 2)
            draw.line([(x, y), end], fill=LINE, width=2)
            draw.polygon([end, (end[0] - 5, end[1] - 9), (end[0] + 5, end[1] - 9)], fill=LINE)
    font = ImageFont.load_default(22)
    for room, (x, y) in centres.items():
        box = (x - BOX[0] // 2, y - BOX[1] // 2, x + BOX[0] // 2, y + BOX[1] // 2)
        draw.rounded_rectangle(box, 10, fill=FILL, outline=LINE, width=2)
        draw.text((x, y), room, fill=TEXT, font=font, anchor="mm")
    image.save(target, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)
