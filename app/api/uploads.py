"""Requests that bring a data set: a file in a form, or its URI in JSON, and what is said of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import Request
from pydantic import Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.api.body import read_json, unstorable
from app.api.field_errors import field_errors
from app.api.problems import invalid_request
from app.api.routing import JSON_TYPES, StrictRoute
from app.data.reading import FileFormat, Reading, ReadingOptions, format_of, no_room, refuse
from app.data.roots import TooLarge, Unreadable, locate, roots_of
from app.domain.study import Name
from app.errors import BadRequest, BodyTooLarge, InvalidDataset, UnsupportedMediaType
from app.scratch import Scratch
from app.settings import Settings

FORM = "multipart/form-data"
FILE = "file"
LISTS = ("drop",)
"""Fields of a form that may come several times."""
MAX_FIELDS = 10_100
FORM_BYTES = 2_000_000
"""What a form may take beside its file: fields, names of columns, headers of its parts."""
MAX_MEDIA_TYPE = 1_000
UTF_8 = {"utf-8", "utf8"}
SLICE_BYTES = 16_384
"""Of a form, what is read at once: a header of a part can take milliseconds for each 4,000 of them."""


class DatasetOptions(ReadingOptions):
    """What is said of a data set beside its file."""

    name: Name
    description: Annotated[str, Field(max_length=2_000)] = ""
    format: FileFormat | None = None
    uri: Annotated[str, Field(max_length=2_000)] | None = None

    def reading(self, filename: str) -> Reading:
        """How the file of this name is read.

        Raises:
            InvalidDataset: neither the name nor its owner tells the format.
        """
        form = self.format or format_of(filename)
        if form is None:
            refuse(
                ("format",), f"Expected csv, parquet or npz, or a file of such an ending. Received: {filename[:100]!r}"
            )
        return Reading(format=form, **{name: getattr(self, name) for name in ReadingOptions.model_fields})


@dataclass(frozen=True, slots=True)
class Brought:
    """What a request brings: `options`, and the file of a form."""

    options: DatasetOptions
    file: UploadFile | None


@dataclass(frozen=True, slots=True)
class Source:
    """A file on this machine, its SHA-256 and its size in bytes."""

    path: Path
    digest: str
    size: int


class UploadRoute(StrictRoute):
    """A route that takes a form with a file, or JSON of the usual size."""

    invalid = InvalidDataset

    async def _check_body(self, request: Request, *, has_body: bool) -> None:  # noqa: ARG002 - there is always one
        if request.method != "POST":
            return
        kind = _media_type(request)
        if kind == FORM:
            return
        if kind not in JSON_TYPES:
            raise UnsupportedMediaType(f"Expected Content-Type: {FORM} or application/json. Received: {kind[:100]!r}")
        settings: Settings = request.app.state.settings
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > settings.max_body_bytes:
                raise BodyTooLarge(f"Expected JSON of at most {settings.max_body_bytes:,} bytes. Received more.")
        request._body = bytes(data)
        await super()._check_body(request, has_body=True)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def brought(request: Request) -> AsyncIterator[Brought]:
    """What the request brings; the form's file is open as long as the block.

    Raises:
        BadRequest: a form that can't be read.
        InvalidDataset: fields that are unknown, missing or wrong.
    """
    if _media_type(request) == FORM:
        try:
            async with aclosing(_slices(request.stream())) as stream:
                form = await _Form(request.headers, stream, max_files=1, max_fields=MAX_FIELDS).parse()
        except MultiPartException as error:
            raise BadRequest(f"Expected a form. {error.message}") from None
        try:
            yield await to_thread.run_sync(_of_form, form)
        finally:
            await form.close()
        return
    options = await to_thread.run_sync(_checked, getattr(request.state, "json", None))
    if options.uri is None:
        refuse(("uri",), "Expected the URI of a file, or an upload as multipart/form-data. Received: none")
    yield Brought(options, None)


class _Form(MultiPartParser):
    """A form whose fields and headers are held in memory, so that all of them together are bounded; its file is not."""

    _held_bytes = 0

    async def parse(self) -> FormData:
        """The form's fields and files, as UTF-8: a codec that the client chose might take hours for a megabyte.

        Raises:
            MultiPartException: it can't be read.
            UnsupportedMediaType: it is said to be of another encoding.
        """
        kind = self.headers["Content-Type"]
        if len(kind) > MAX_MEDIA_TYPE:  # to take it apart costs more than its length
            raise UnsupportedMediaType(f"Expected a Content-Type of at most {MAX_MEDIA_TYPE:,} characters.")
        _, parameters = parse_options_header(kind)
        charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
        if charset.lower() not in UTF_8:
            raise UnsupportedMediaType(f"Expected a form in UTF-8. Received: charset={charset[:100]!r}")
        return await super().parse()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._hold(end - start)
        super().on_part_data(data, start, end)

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._hold(end - start)
        super().on_header_field(data, start, end)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._hold(end - start)
        super().on_header_value(data, start, end)

    def _hold(self, count: int) -> None:
        self._held_bytes += count
        if self._held_bytes > FORM_BYTES:
            raise MultiPartException(f"Expected fields of at most {FORM_BYTES:,} bytes together.")


async def _slices(stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What arrives, in pieces small enough that others are served between any two of them."""
    async for chunk in stream:
        for start in range(0, len(chunk), SLICE_BYTES):
            yield chunk[start : start + SLICE_BYTES]
            await checkpoint()


def _of_form(form: FormData) -> Brought:
    fields: dict[str, Any] = {}
    file: UploadFile | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != FILE:
                refuse((name[:100],), f"Expected the file in the part {FILE!r}. Received it in {name[:100]!r}")
            file = value
        elif name in LISTS:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise BadRequest(f"Expected each field of the form once. Received twice: {name[:100]!r}")
        else:
            fields[name] = _parsed(name, value)
    options = _checked(fields)
    if options.uri is not None:
        refuse(("uri",), "Expected a file or a URI. Received both: a URI is sent as JSON")
    if file is None:
        refuse((FILE,), f"Expected a part {FILE!r} with a file name. Received: none")
    return Brought(options, file)


def _parsed(name: str, value: str) -> Any:
    """A field of a form: `columns` is a JSON object."""
    if name != "columns":
        return value
    try:
        return read_json(value.encode())
    except BadRequest as error:
        refuse((name,), error.detail)


def _checked(fields: Any) -> DatasetOptions:
    errors = unstorable(fields)
    if errors:
        raise invalid_request(errors, InvalidDataset)
    try:
        return DatasetOptions.model_validate(fields)
    except ValidationError as error:
        found = field_errors(error.errors(include_url=False), fields, DatasetOptions)
        raise invalid_request(found, InvalidDataset) from None


@contextmanager
def folder_to_work_in() -> Iterator[Path]:
    """A folder of this machine, gone with the block.

    Raises:
        Unready: there is no room for one.
    """
    try:
        scratch = Scratch("upload")
    except OSError as error:
        raise no_room(error) from None
    with scratch:
        yield scratch.path


def source_of(what: Brought, settings: Settings, folder: Path) -> tuple[Source, Reading]:
    """The file that a request brings, in `folder`, and how it is to be read.

    Raises:
        InvalidDataset: it is not below the operator's roots, too large, or of no known format.
        BodyTooLarge: what was uploaded is too large.
        Unready: there is no room for it.
    """
    path = folder / "source"
    if what.file is not None:
        reading = what.options.reading(what.file.filename or "")
        source = _saved(what.file, path)
        if source.size > settings.max_upload_bytes:
            raise BodyTooLarge(
                f"Expected a file of at most {settings.max_upload_bytes:,} bytes. Received a larger one."
            )
        return source, reading
    uri = str(what.options.uri)
    named = locate(uri, roots_of(settings.dataset_roots))
    reading = what.options.reading(uri)
    try:
        digest = named.copy(path, settings.max_upload_bytes)
    except TooLarge as error:
        refuse(("uri",), f"{error}")
    except Unreadable as error:
        refuse(("uri",), f"Expected a file that can be read. Received: {error.kind}")
    except OSError as error:
        raise no_room(error) from None
    return Source(path, digest, path.stat().st_size), reading


def _saved(file: UploadFile, path: Path) -> Source:
    try:
        with path.open("wb") as copy:
            shutil.copyfileobj(file.file, copy, 2**20)
    except OSError as error:
        raise no_room(error) from None
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Source(path, digest, path.stat().st_size)


def fingerprint(options: DatasetOptions, digest: str) -> Any:
    """What makes a request the same as another: what it says, and the content of its file."""
    return {**json.loads(options.model_dump_json()), "content": digest}
