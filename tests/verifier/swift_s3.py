"""A verifier of SigV4 that is not ours: OpenStack Swift's S3 API before a store that forgets.

Runs in a virtual environment of its own (see install.sh), prints one line of JSON when it listens,
and ends with its standard input. Buckets are always there; an object may be written, and the
answer's ETag is the MD5 of what was verified. Everything that decides is Swift's: the filters s3api
(signature of the request, digest of the body, signatures of its chunks) and tempauth (who it is).
"""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable

import eventlet  # type: ignore[import-not-found]  # of the other environment
import eventlet.wsgi  # type: ignore[import-not-found]
from swift.common.http_protocol import SwiftHttpProtocol  # type: ignore[import-not-found]
from swift.common.middleware import tempauth  # type: ignore[import-not-found]
from swift.common.middleware.s3api import s3api  # type: ignore[import-not-found]
from swift.common.swob import Request, Response  # type: ignore[import-not-found]

ACCESS_KEY = "test:tester"
SECRET_KEY = "testing"
REGION = "eu-west-2"
PIECE_BYTES = 65536

Environ = dict[str, object]
StartResponse = Callable[..., object]
WSGIApplication = Callable[[Environ, StartResponse], Iterable[bytes]]


def forgetful_store(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Reads what is written to it, which makes the filters before it check, and keeps nothing."""
    request = Request(environ)
    who: Callable[[Request], WSGIApplication | None] = request.environ["swift.authorize"]
    answer = who(request)  # tempauth's: it has checked the signature, and says no here
    if answer is None:
        answer = _written(request) if request.method == "PUT" else _there(request)
    return answer(environ, start_response)


def _there(request: Request) -> Response:
    answer = Response(status=204, request=request)
    answer.headers["X-Container-Object-Count"] = "0"
    return answer


def _written(request: Request) -> Response:
    digest = hashlib.md5(usedforsecurity=False)
    length = 0
    while length < request.content_length:
        piece = request.environ["wsgi.input"].read(PIECE_BYTES)
        if not piece:
            return Response(status=499, request=request)
        digest.update(piece)
        length += len(piece)
    answer = Response(status=201, request=request)
    answer.headers["ETag"] = digest.hexdigest()
    answer.headers["Last-Modified"] = "Thu, 01 Jan 2026 00:00:00 GMT"
    return answer


def main() -> None:
    """Serve until nobody holds our standard input."""
    settings = {"log_level": "CRITICAL", "auth_pipeline_check": "false", "location": REGION}
    users = {"user_test_tester": f"{SECRET_KEY} .admin"}
    app = tempauth.filter_factory({}, **settings, **users)(forgetful_store)
    app = s3api.filter_factory({}, **settings)(app)
    socket = eventlet.listen(("127.0.0.1", 0))
    ready = {
        "url": f"http://127.0.0.1:{socket.getsockname()[1]}",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "region": REGION,
    }
    print(json.dumps(ready), flush=True)  # noqa: T201 - the way it says where it is
    threading.Thread(target=_end_with_input, daemon=True).start()
    with open(os.devnull, "w", encoding="utf-8") as log:
        eventlet.wsgi.server(socket, app, log=log, protocol=SwiftHttpProtocol)


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
