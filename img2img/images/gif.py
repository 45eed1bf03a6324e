"""Whether a GIF has an end: its blocks, without what is in them (GIF89a, appendix A)."""


def gif_is_whole(data: bytes) -> bool:
    """Whether a GIF goes on to its trailer; also true if its blocks make no sense, which others find."""
    place = 13 + _table(data, 10)
    while place < len(data):
        kind = data[place]
        if kind == 0x3B:  # the trailer
            return True
        if kind == 0x2C:  # an image
            place += 10 + _table(data, place + 9) + 1
        elif kind == 0x21:  # an extension
            place += 2
        else:
            return True
        while place < len(data) and data[place]:  # its parts, each with its length
            place += data[place] + 1
        place += 1
    return False


def _table(data: bytes, place: int) -> int:
    """The length of the colour table that the flags at a place speak of."""
    flags = data[place] if place < len(data) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
