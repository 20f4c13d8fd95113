"""A DICOMweb store in the shape of AWS HealthImaging, on loopback: demo, tests and bench.

It is the judge of what the rest of the package sends and believes. So it shares no code with it:
signatures are verified and the multipart body is read by strict parsers of its own, and UIDs are
read by pydicom from the bytes that arrived.

``server`` composes, and ``front`` is what every request passes: ``throttle``, then ``sigv4`` with
``canonical`` and ``credentials``, then its ``body``, which ``payload`` and ``chunks`` vouch for;
``certificates`` are for TLS. ``stow`` (with ``intake`` and ``manifest``), ``qido``, ``wado`` and
``metadata`` are services of PS3.18 section 10, ``search_image_sets`` is one of the control plane.
``store`` keeps instances on disk, byte for byte; ``index`` and ``image_sets`` find them again.
``multipart``, ``media_types``, ``part10`` and ``answers`` are what these need.
"""

from ingester.emulator.credentials import Credentials
from ingester.emulator.payload import PayloadMode
from ingester.emulator.server import Emulator

__all__ = ["Credentials", "Emulator", "PayloadMode"]
