"""Warning reasons (0008,1196) as words: PS3.18 Table I.2-2 and AWS HealthImaging, STOW-RS page.

AWS prints the last three in decimal with other values than its hexadecimal; both are known.
"""

from __future__ import annotations

_WARNINGS = {
    0xB000: "data elements were coerced",
    0xB006: "data elements were discarded",
    0xB007: "the data set does not match its SOP class",
    0xB100: "the pixels could not be transcoded",
    0xB110: "a frame could not be extracted",
    0xB111: "NumberOfFrames does not match the pixel data",
    0xB112: "the offset table is invalid",
    0xB120: "the transfer syntax is not supported: the pixels are kept as a blob",
    0xB201: "a UID is invalid",
    0xB202: "a value has an invalid length",
    0xBFFF: "another reason",
}
_DECIMALS_OF_AWS = {45571: 0xB202, 47513: 0xBFFF}


def warning_words(code: int) -> str:
    """What a warning reason means, in a few words; '' for one that no document names.

    45570 is B202 as well as AWS's decimal for B201: the hexadecimal reading is the documented one.
    """
    known = _WARNINGS.get(code)
    if known is None and code in _DECIMALS_OF_AWS:
        known = _WARNINGS[_DECIMALS_OF_AWS[code]]
    return known or ""
