"""A verifier that others wrote, of a service with the same signatures, judges what we send.

OpenStack Swift's S3 API checks the signature of the request, the digest of its body, and the
signature of each chunk. Its service is S3: signed as 's3', whose paths are encoded once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ingester.auth import Secret
from ingester.auth.chain import Provider
from ingester.auth.credentials import CredentialSource
from ingester.auth.sigv4 import Credentials, PayloadMode, Signer
from ingester.dicomweb.multipart import multipart_framing, new_boundary
from ingester.dicomweb.profiles import PROFILES
from ingester.files import read_again
from ingester.items import FileIdentity, FileRef, Instance
from ingester.transport.authorizer import SigV4
from ingester.transport.body import Body, BodyPayload
from ingester.transport.reply import Answer
from ingester.transport.sender import Sender, SenderOptions
from tests.healthimaging.foreign import Relay, Verdict, Verifier, replay, running_verifier
