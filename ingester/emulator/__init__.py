"""A DICOMweb store in the shape of AWS HealthImaging, on loopback: demo, tests and bench.

It is the judge of what the rest of the package sends and believes. So it shares no code with it:
the multipart body is read by a strict parser of its own, and UIDs are read by pydicom from the
bytes that arrived.

``server`` composes; ``stow``, ``qido`` and ``wado`` are the three services of PS3.18 section 10;
``store`` keeps instances on disk, byte for byte, and ``index`` finds them again;
``multipart``, ``media_types``, ``part10`` and ``answers`` are what these need.
"""

from ingester.emulator.server import Emulator

__all__ = ["Emulator"]
