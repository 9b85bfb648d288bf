"""HDR and wide-gamut video as SDR: R'G'B' of BT.2100 or of wide primaries to that of BT.709.

Light is linear, in units of SDR white, which HDR video shows at 203 cd/m² (BT.2408, table 1).
Displays of SDR video have a gamma of 2.4 (BT.1886).
"""

import functools

import numpy as np
from jaxtyping import Float, UInt8, UInt16

PQ, HLG = 16, 18  # transfer functions of H.273
BT709, BT2020, P3_D65 = 1, 9, 12  # primaries of H.273
WHITE = 203.0  # cd/m² of SDR white
PEAK = 1000.0  # cd/m²: HLG's reference display (BT.2100, table 5) and the usual master in PQ
GAMMA = 2.4

# Chromaticities (x, y) of red, green, blue in H.273, table 2; their white is D65.
_PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)
_HLG_LUMA = (0.2627, 0.6780, 0.0593)  # BT.2100, table 5: of the scene's luminance
_LEVELS = 4096  # 12 bits, as BT.2100 has at most


def is_needed(transfer: int, primaries: int) -> bool:
    """Whether frames with these tags of H.273 are not R'G'B' of BT.709."""
    return transfer in (PQ, HLG) or primaries in (BT2020, P3_D65)


def to_sdr(
    image: UInt16[np.ndarray, "h w 3"], transfer: int, primaries: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Converts R'G'B' of 16 bits, full range, with the given tags of H.273.

    HDR is mapped to SDR by the curve of BT.2390, applied to the largest component, which keeps the
    hue; colours outside BT.709 are clipped.
    """
    hdr = transfer in (PQ, HLG)
    light = _light(transfer)[image >> 4]
    if transfer == HLG:
        luminance = light @ np.asarray(_HLG_LUMA, np.float32)
        light *= (PEAK / WHITE * luminance**0.2)[..., None]  # BT.2100: gamma of 1.2 at 1000 cd/m²
    source = primaries if primaries in _PRIMARIES else BT2020 if hdr else BT709
    if source != BT709:
        light = np.maximum(light @ _gamut(source), 0)
    if hdr:
        light *= _looked_up(_gains(), light.max(-1, keepdims=True))
    return _looked_up(_levels(), light)


@functools.cache
def _light(transfer: int) -> Float[np.ndarray, " levels"]:
    """Light of each signal; of the scene, from 0 to 1, for HLG."""
    signal = np.arange(_LEVELS) / (_LEVELS - 1)
    if transfer == PQ:
        light = _pq_eotf(signal) / WHITE
    elif transfer == HLG:  # BT.2100, table 5: inverse OETF
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = signal**GAMMA
    return light.astype(np.float32)


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_eotf(signal: np.ndarray) -> np.ndarray:
    """cd/m² of a PQ signal in 0 to 1 (BT.2100, table 4)."""
    power = np.asarray(signal) ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1))


def _pq_inverse(light: np.ndarray | float) -> np.ndarray:
    power = (np.asarray(light) / 10_000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _eetf(light: np.ndarray) -> np.ndarray:
    """Light of SDR for light of HDR (BT.2390, section 5.4.1): equal below a knee, at most 1."""
    peak = _pq_inverse(PEAK)
    signal = np.minimum(_pq_inverse(light * WHITE) / peak, 1)
    top = _pq_inverse(WHITE) / peak
    knee = 1.5 * top - 0.5
    t = (signal - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * top
    )
    return _pq_eotf(np.where(signal < knee, signal, spline) * peak) / WHITE


def _halves() -> np.ndarray:
    """Every number of 16 bits that light may be, by its bits: 11 bits of precision suffice."""
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
    return np.where(values >= 0, np.nan_to_num(values, posinf=65504), 0)


@functools.cache
def _gains() -> Float[np.ndarray, " halves"]:
    values = np.maximum(_halves(), 1e-8)
    return (_eetf(values) / values).astype(np.float32)


@functools.cache
def _levels() -> UInt8[np.ndarray, " halves"]:
    return np.rint(255 * np.minimum(_halves(), 1) ** (1 / GAMMA)).astype(np.uint8)


def _looked_up(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    return table[values.astype(np.float16).view(np.uint16)]


@functools.cache
def _gamut(primaries: int) -> Float[np.ndarray, "3 3"]:
    """Converts rows of light in these primaries to BT.709."""
    matrix = np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries)
    return matrix.T.astype(np.float32)


def _to_xyz(primaries: int) -> Float[np.ndarray, "3 3"]:
    """CIE XYZ of linear RGB (SMPTE RP 177)."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _PRIMARIES[primaries]]).T
    x, y = _D65
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])
