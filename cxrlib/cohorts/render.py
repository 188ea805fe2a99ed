"""Draw phantom chest radiographs, a batch at a time, from a scene.

A scene is a dictionary of arrays, one entry per image (see :func:`cxrlib.cohorts.phantom.scene`).
The image is a sum of attenuations (body, lungs, heart, bones, vessels, findings, devices) that a
tone curve turns into grey levels, bright for dense as on a film. Coordinates run from -1 to 1 in
both directions, x from image left (the patient's right) to image right and y from top to bottom,
so a scene can be drawn at any size. Curves that depend on the row or on the column alone are drawn
as such and combined by broadcasting, which is what makes it fast.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cxrlib.cohorts import metadata, shape_model

CHUNK_PIXELS = 160_000  # a chunk of float32 planes that stays in the processor's cache
BANK = 512  # side of the bank of noise that every image's grain is cut from


def render(scene: dict[str, np.ndarray], size: int = 64) -> np.ndarray:
    """Radiographs of a scene.

    Parameters
    ----------
    scene : dict of arrays, first axis n
    size : int
        Side of the square image in pixels, 32 or more.

    Returns
    -------
    uint8 array (n, size, size)
    """
    if size < 32:
        raise ValueError(f"size={size}: a phantom needs 32 pixels or more a side")
    n = len(scene["key"])
    images = np.empty((n, size, size), np.uint8)
    step = max(1, CHUNK_PIXELS // size**2)
    for start in range(0, n, step):
        part = {k: v[start : start + step] for k, v in scene.items()}
        images[start : start + step] = _draw(part, size)
    return images


# --- small drawing vocabulary: (n,) values, (n, size) rows or columns, (n, size, size) planes ---


def _one(v):
    return v[:, None, None]


def _rows(v):
    return v[:, :, None]


def _cols(v):
    return v[:, None, :]


def _ramp(distance, width):
    """0 outside, 1 inside, linear over ``width`` around the border."""
    return np.clip(distance / width + 0.5, 0.0, 1.0)


def _bump(distance, width):
    """Smooth bump of half-width ``width`` around distance 0: (1 - d^2)^2."""
    d = np.clip(np.square(distance / width), 0.0, 1.0)
    return np.square(1.0 - d)


def _line(distance, width):
    return np.clip(1.5 - np.abs(distance) / width, 0.0, 1.0)


def _ellipse(x, y, cx, cy, rx, ry, edge, rough=0.0):
    r = np.sqrt(np.square((x - _one(cx)) / _one(rx)) + np.square((y - _one(cy)) / _one(ry)))
    return _ramp(1.0 - r + rough, edge)


def _interpolate(curve, position):
    """Values (n, m) of uniformly sampled curves (n, k) at positions (n, m) in [0, 1], clamped."""
    last = curve.shape[1] - 1
    at = np.clip(position, 0, 1) * last
    i = np.minimum(at.astype(np.intp), last - 1)
    low, high = (np.take_along_axis(curve, j, axis=1) for j in (i, i + 1))
    return low + (high - low) * (at - i)


@lru_cache(maxsize=4)
def _bank(smooth: int) -> np.ndarray:
    """Periodic noise of unit variance, smoothed over ``smooth`` pixels; read-only."""
    noise = np.random.Generator(np.random.Philox(271828)).standard_normal((BANK, BANK))
    if smooth:
        frequency = np.fft.fftfreq(BANK)
        squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
        kernel = np.exp(-2 * (np.pi * smooth) ** 2 * squared)
        noise = np.fft.ifft2(np.fft.fft2(noise) * kernel).real
        noise /= noise.std()
    return np.tile(noise, (2, 2)).astype(np.float32)


def _noise(key, size, smooth=0, shift=0):
    """One cut of the bank an image, at a place that its key gives."""
    bank = _bank(smooth)
    y = (key >> np.uint64(8 + shift)) % np.uint64(BANK)
    x = (key >> np.uint64(24 + shift)) % np.uint64(BANK)
    # Big images take more than one tile of the bank.
    grid = np.arange(size) % BANK
    places = zip(y.astype(int), x.astype(int), strict=True)
    return np.stack([bank[j : j + BANK, i : i + BANK][np.ix_(grid, grid)] for j, i in places])


# --- the radiograph ---


def _draw(s: dict, size: int) -> np.ndarray:
    px = 2.0 / size
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * px - 1.0)[None, :]
    x, y = axis[:, None, :], axis[:, :, None]
    midline = s["cx"][:, None] + s["tilt"][:, None] * axis  # x of the midline in each row
    off = x - _rows(midline)  # signed distance from the midline, (n, size, size)
    across = np.abs(off) / _one(s["width"])

    lungs, air = _lungs(s, axis, px, midline)
    thorax = _ramp(1.04 - across, 0.1) * _rows(_ramp(axis - s["top"][:, None] + 0.06, 0.12))
    floor = np.where(axis < s["cx"][:, None], lungs[0]["floor"], lungs[1]["floor"])
    below = _ramp(y - _cols(floor), 0.1)
    vessels = _vessels(s, x, y, px)
    coarse = _noise(s["key"], size, smooth=max(1, size // 24), shift=7)

    density = _body(s, axis, across, off, px)
    density -= air * _one(s["air"])
    density += below * 0.12
    density += _mediastinum(s, x, y, off, px)
    density += _bones(s, x, y, off, across, thorax, px)
    density += _breasts(s, x, y, px)
    haze, vessels = _findings(s, x, y, off, lungs, air, vessels, coarse, px)
    density += haze
    density += air * vessels * _one(s["vessels"])
    density += air * coarse * 0.012
    density += _devices(s, axis, x, y, midline, px)
    return _expose(s, density, axis, size, px)


def _lungs(s, axis, px, midline):
    """Edges, floor and soft mask of both lungs, after volume loss; the union of the masks."""
    height = (s["bottom"] - s["top"])[:, None]
    sides = []
    for curves, side in zip(shape_model.load().curves(s["shape"]), (-1, 1), strict=True):
        here = s["atelectasis_side"] == side
        raised = np.where(here, 0.10 * s["Atelectasis"], 0.0)[:, None]
        top = s["top"][:, None] + height * curves["top"]
        bottom = s["top"][:, None] + height * curves["bottom"]
        t = (axis - top) / (bottom - top)
        width = s["width"][:, None]
        lateral = midline + width * _interpolate(curves["lateral"], t)
        medial = midline + width * _interpolate(curves["medial"], t)
        base = s["cx"][:, None] + width * curves["lateral"][:, -1:]
        inner = s["cx"][:, None] + width * curves["medial"][:, -1:]
        depth = (axis - base) / (inner - base)  # 0 at the chest wall, 1 at the heart
        floor = s["top"][:, None] + height * _interpolate(curves["dome"], depth)
        floor = floor + s["roll"][:, None] * axis - raised
        lung = {"side": side, "lateral": lateral, "medial": medial, "floor": floor}
        lung |= {"top": top, "t": t, "depth": depth}
        lung["mask"] = _lung_mask(lung, axis, px)
        sides.append(lung)
    return sides, np.maximum(sides[0]["mask"], sides[1]["mask"])


def _lung_mask(lung, axis, px, shrink=0.0, lower_top=0.0):
    """Soft mask of one lung; ``shrink`` (n, size) moves the chest-wall border inwards."""
    x, y, side = axis[:, None, :], axis[:, :, None], lung["side"]
    wall = _rows(lung["lateral"] - side * shrink)
    inside = _ramp(side * (wall - x), 2.5 * px) * _ramp(side * (x - _rows(lung["medial"])), 0.06)
    inside *= _ramp(_cols(lung["floor"]) - y, 2.5 * px)
    return inside * _rows(_ramp(axis - lung["top"] - lower_top, 2.5 * px))


def _body(s, axis, across, off, px):
    shoulder = 1.0 + 0.45 * _ramp(axis + 0.55, 0.5) - 0.10 * _ramp(axis - 0.2, 1.0)
    neck = 0.34 + 0.5 * _ramp(axis + 0.80, 0.30)
    half = s["body"][:, None] * np.minimum(neck * 1.3, shoulder * 0.72)
    inside = _ramp(_rows(half) - np.abs(off), 0.05)
    thick = np.sqrt(np.clip(1.0 - np.square(off / (_rows(half) + 0.05)), 0.0, 1.0))
    return inside * (_one(s["bulk"]) + 0.22 * thick)


def _mediastinum(s, x, y, off, px):
    spine = _bump(off, 0.13) * (0.12 + 0.025 * np.cos(2 * np.pi * y / 0.13 + _one(s["spine"])))
    cavity = _bump(off, 0.27) * 0.22 * _ramp(y + 0.85, 0.4)
    trachea = _bump(off - 0.01, 0.055) * _ramp(-0.30 - y, 0.15) * 0.13
    # Heart: two thirds of its width lie left of the midline. Its width is the cardiothoracic ratio.
    half = s["ctr"] * s["width"]
    cy = s["floor"] - 0.52 * half
    tilt = 0.35
    hx, hy = off - _one(0.30 * half), y - _one(cy)
    u, v = hx + tilt * hy, hy - tilt * hx
    heart = _ramp(1.0 - np.sqrt(np.square(u / _one(half)) + np.square(v / _one(0.86 * half))), 0.20)
    knob = _ellipse(x, y, s["cx"] + 0.10, s["top"] + 0.37, s["aorta"], s["aorta"], 0.6)
    hila = _bump(np.abs(off) - 0.20, 0.13) * _bump(y - _one(s["hilum"]), 0.20)
    rim = np.sqrt(np.square(x - _one(s["cx"] + 0.10)) + np.square(y - _one(s["top"] + 0.37)))
    calcified = _one(s["calcium"]) * _bump(rim - _one(s["aorta"]), 2 * px)
    return spine + cavity - trachea + heart * 0.36 + knob * 0.18 + hila * 0.10 + calcified * 0.10


def _bones(s, x, y, off, across, thorax, px):
    spacing, phase = _one(s["rib_spacing"]), _one(s["rib_phase"])
    back = (y - 0.42 * np.square(across - 0.30)) / spacing + phase
    front = (y + 0.55 * across) / (1.15 * spacing) - phase
    ribs = np.clip(np.cos(2 * np.pi * back) * 1.5 - 0.55, 0, 1)
    ribs += 0.45 * np.clip(np.cos(2 * np.pi * front) * 1.5 - 0.75, 0, 1) * _ramp(across - 0.3, 0.3)
    ribs *= thorax * _ramp(across - 0.12, 0.1) * _ramp(0.75 - y, 0.5)
    line = s["top"][:, None, None] + 0.10 + _one(s["clavicle"])
    collar = _bump(y - line + 0.16 * np.abs(off) - 0.10 * np.square(off), 0.045)
    collar *= _ramp(across - 0.16, 0.08) * _ramp(1.15 - across, 0.1)
    blade = _bump(across - 0.98 - 0.10 * y, 0.10) * _ramp(0.1 - y, 0.4) * _one(s["ap"])
    return _one(s["bone"]) * (0.095 * ribs + 0.12 * collar) + 0.05 * blade


def _vessels(s, x, y, px):
    """Branching streaks that leave the hila, thinner and weaker outwards; 0 to about 1."""
    side = np.where(x < _one(s["cx"]), -1.0, 1.0).astype(np.float32)
    dx = (x - _one(s["cx"])) * side - 0.18
    dy = y - _one(s["hilum"])
    r = np.sqrt(dx * dx + dy * dy) + 1e-3
    angle = np.arctan2(dy, dx) + 0.25 * np.sin(7 * r + _one(s["vessel_phase"]) + side)
    trunk = np.clip(1 - np.abs(np.sin(4.5 * angle + _one(s["vessel_phase"]))) * r / 0.045, 0, 1)
    twig = np.clip(1 - np.abs(np.sin(10.5 * angle - _one(s["vessel_phase"]))) * r / 0.06, 0, 1)
    trunk = trunk * _ramp(r - 0.07, 0.08)
    return trunk * np.exp(-r / 0.45) + 0.7 * twig * _ramp(r - 0.22, 0.2) * np.exp(-r / 0.55)


def _breasts(s, x, y, px):
    size = s["breast"]
    shadow = 0.0
    for k in (-1, 1):
        cx, cy = s["cx"] + k * 0.48 * s["width"] * 1.15, s["floor"] - 0.10
        shadow = shadow + _ellipse(x, y, cx, cy, 0.24 + 0.5 * size, 0.20 + 0.6 * size, 0.45)
    return shadow * _one(size)


def _findings(s, x, y, off, lungs, air, vessels, coarse, px):
    """Attenuation that the findings add, and the vessels that they leave visible."""
    haze = np.zeros_like(air)

    # Edema: bilateral perihilar haze, prominent vessels, septal lines at the bases.
    amount = _one(s["Edema"])
    wing = _bump(np.abs(off) - 0.26, 0.42) * _bump(y - _one(s["hilum"]) - 0.08, 0.62)
    septal = np.clip(np.cos(2 * np.pi * y / 0.055) * 2 - 1, 0, 1) * _bump(np.abs(off) - 0.56, 0.12)
    septal = septal * _bump(y - _one(s["floor"]) + 0.12, 0.16)
    haze += air * amount * (0.12 * wing * (1 + 0.25 * coarse) + 0.06 * septal)
    vessels = vessels * (1 + 0.4 * amount)

    for lung in lungs:
        side, mask = lung["side"], lung["mask"]
        on = {
            f: _one(np.where(s[f"{f.lower().replace(' ', '_')}_side"] == side, s[f], 0.0))
            for f in metadata.STUDIED
        }
        depth, floor = _cols(lung["depth"]), _cols(lung["floor"])

        # Atelectasis: plate-like bands above the raised diaphragm.
        bands = 0.0
        for k in range(3):
            level = floor - 0.10 - 0.085 * k - 0.10 * _one(s["atelectasis_slope"]) * depth
            bands = bands + _bump(y - level, 0.026) * _ramp(_one(s["atelectasis_bands"]) - k, 0.1)
        haze += mask * on["Atelectasis"] * 0.34 * bands * _bump(depth - 0.5, 0.62)

        # Consolidation: one dense lobar patch with air bronchograms.
        cx = s["cx"] + side * s["width"] * (0.34 + 0.34 * s["consolidation_x"])
        cy = s["top"] + (s["floor"] - s["top"]) * (0.25 + 0.55 * s["consolidation_y"])
        radius = 0.17 + 0.10 * s["consolidation_size"]
        patch = _ellipse(x, y, cx, cy, radius, 0.85 * radius, 0.45, rough=0.22 * coarse)
        haze += mask * on["Consolidation"] * patch * (0.21 - 0.06 * vessels + 0.02 * coarse)

        # Pneumonia: several small, ill-defined, mottled patches in one zone.
        patches = 0.0
        for k, (ax, ay) in enumerate(((-0.13, 0.05), (0.10, -0.10), (0.05, 0.15), (-0.02, -0.02))):
            turn = 1.0 if k % 2 else -1.0
            px_ = s["cx"] + side * s["width"] * (0.48 + turn * 0.2 * (s["pneumonia_x"] - 0.5)) + ax
            py = s["top"] + (s["floor"] - s["top"]) * (0.45 + 0.3 * s["pneumonia_y"]) + ay
            away = np.sqrt(np.square(x - _one(px_)) + np.square(y - _one(py)))
            patches = patches + _bump(away, 0.15)
        mottled = 0.20 + 0.12 * np.clip(coarse, -1.2, 1.8)
        haze += mask * on["Pneumonia"] * np.minimum(patches, 1.2) * mottled

        # Pleural effusion: homogeneous fluid with a meniscus that climbs the chest wall.
        amount = on["Pleural Effusion"]
        climb = np.clip(1 - depth, 0, 1.1) ** 3
        surface = floor - amount * (0.08 + 0.30 * climb) + 0.02
        fluid = _one(s["air"]) * 0.72 + 0.08
        haze += mask * np.minimum(amount * 4, 1) * _ramp(y - surface, 0.05) * fluid

        # Pneumothorax: air without vessels outside a thin pleural line, widest at the apex.
        amount = on["Pneumothorax"]
        gap = amount[:, :, 0] * (0.14 + 0.27 * np.clip(1 - lung["t"], 0, 1)) * s["width"][:, None]
        inner = _lung_mask(lung, x[:, 0, :], px, shrink=gap, lower_top=amount[:, :, 0] * 0.24)
        space = mask * (1 - inner) * (amount > 0)
        haze -= space * 0.16 * _one(s["contrast"])
        vessels = vessels * (1 - space)
        pleura = _line(x - _rows(lung["lateral"] - side * gap), 1.1 * px)
        apex = x[:, 0, :] - lung["top"] - 0.10 * amount[:, :, 0]
        pleura = pleura * _rows(_ramp(apex, 3 * px))
        haze += mask * pleura * np.minimum(amount * 2, 1) * 0.11 * _one(s["contrast"])
    return haze, vessels


def _devices(s, axis, x, y, midline, px):
    # Chest drain: from the lower lateral wall up towards the apex; a tube with an opaque stripe.
    low, high = s["floor"] - 0.22, s["top"] + 0.22 + 0.15 * s["drain_bend"]
    t = np.clip((low[:, None] - axis) / (low - high)[:, None], 0, 1)
    reach = (0.98 - 0.62 * t + 0.30 * t * t * s["drain_bend"][:, None]) * s["width"][:, None]
    tube = x - _rows(midline + s["drain_side"][:, None] * reach)
    extent = _rows(_ramp(axis - high[:, None], 0.03) * _ramp(low[:, None] + 0.05 - axis, 0.03))
    width = max(0.022, 1.1 * px)
    stripe = 0.13 * _line(tube, width) + 0.09 * _line(tube, 0.6 * width)
    drain = _one(s["drain"]) * extent * stripe

    # Pacemaker: generator below the clavicle, lead to the right ventricle.
    gx, gy = s["cx"] + 0.62 * s["pacemaker_side"] * s["width"], s["top"] + 0.24
    box = _ramp(1 - np.maximum(np.abs(x - _one(gx)) / 0.10, np.abs(y - _one(gy)) / 0.085), 0.2)
    end = s["floor"] - 0.18
    t = np.clip((axis - gy[:, None]) / (end - gy)[:, None], 0, 1)
    target = (s["cx"] + 0.22 * s["width"])[:, None]
    path = gx[:, None] + (target - gx[:, None]) * np.square(np.sin(t * np.pi / 2))
    extent = _rows(_ramp(axis - gy[:, None], 0.02) * _ramp(end[:, None] - axis, 0.02))
    lead = _line(x - _rows(path), 0.9 * px) * extent
    pacemaker = _one(s["pacemaker"]) * (0.42 * box + 0.20 * lead)

    # ECG leads: stickers and thin wires over the chest.
    wires = 0.0
    for k, (ex, ey) in enumerate(((-0.55, -0.42), (0.55, -0.45), (0.45, 0.30))):
        sx = s["cx"] + ex * s["width"] + 0.08 * (s["ecg_place"] - 0.5)
        sy = ey + 0.1 * s["ecg_place"]
        dot = _bump(np.sqrt(np.square(x - _one(sx)) + np.square(y - _one(sy))), 0.05)
        slope = (-0.35, 0.30, -0.5)[k]
        wire = _line(x - _one(sx) - slope * (y - _one(sy)), 0.7 * px) * _ramp(_one(sy) - y, 0.02)
        wires = wires + 0.22 * dot + 0.10 * wire
    return drain + pacemaker + _one(s["ecg_leads"]) * wires


def _expose(s, density, axis, size, px):
    """Tone curve, scanner signature, grain, collimation and side marker; grey levels as uint8."""
    # Logistic film curve: steep in the lungs, flat in the dense parts.
    grey = 1.0 / (1.0 + np.exp(-_one(s["gain"]) * (density - _one(s["center"]))))
    x, y = axis[:, None, :], axis[:, :, None]
    b, c, mark = (_one(s[k]) for k in ("site_b", "site_c", "site_mark"))
    # Site B: softer optics and a dim right border. Site C: harder curve and strong grain.
    blurred = grey.copy()
    m = slice(1, -1)
    cross = grey[:, m, m] + grey[:, :-2, m] + grey[:, 2:, m] + grey[:, m, :-2] + grey[:, m, 2:]
    blurred[:, m, m] = 0.2 * cross
    grey += b * (blurred - grey) - b * 0.10 * _ramp(x - 0.82, 0.3)
    grey += c * (0.10 * np.sin(2 * np.pi * (grey - 0.5)) * -0.8)
    fine, slow = _noise(s["key"], size), _noise(s["key"], size, smooth=1, shift=20)
    grey += (0.011 + 0.016 * c) * _one(s["grain"]) * fine + 0.014 * _one(s["grain"]) * slow
    # A burnt-in identity strip below, as scanners of one maker leave it.
    strip = _ramp(y - 0.94, px) * _ramp(0.35 - np.abs(x - 0.5), px)
    grey = grey * (1 - mark * strip) + mark * strip * (0.5 + 0.4 * np.sign(np.sin(40 * x)))
    edge = s["collimation"][:, None]
    window = _ramp(edge - np.abs(axis), 0.03)
    grey *= 0.06 + 0.94 * _rows(window) * _cols(window)
    grey = np.maximum(grey, _marker(s, x, y, px))
    return (np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)


def _marker(s, x, y, px):
    """A lead letter L beside the left shoulder or R beside the right one."""
    side = s["marker"]
    cx, stroke = _one(0.78 * side), max(0.022, 0.9 * px)
    u, v = x - cx, y + 0.74
    stem = _line(u + 0.05, stroke) * _ramp(0.09 - np.abs(v), px)
    foot = _line(v - 0.08, stroke) * _ramp(0.055 - np.abs(u), px)
    bow = _line(np.sqrt(np.square(u + 0.01) + np.square(v + 0.045)) - 0.05, stroke)
    leg = _line(u - 0.7 * v + 0.01, stroke) * _ramp(v, px) * _ramp(0.09 - v, px)
    left = _one((side > 0).astype(np.float32))
    letter = stem + left * foot + (1 - left) * (bow * _ramp(u + 0.05, px) + leg)
    return 0.95 * np.clip(letter, 0, 1)
