"""Requests that bring a data set: a file in a form, or its URI in JSON, and what is said of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Request
from pydantic import Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.api.body import read_json, unstorable
from app.api.field_errors import field_errors
from app.api.problems import invalid_request
from app.api.routing import JSON_TYPES, StrictRoute
from app.data.reading import FileFormat, Reading, ReadingOptions, format_of, refuse
from app.data.roots import TooLarge, locate, roots_of
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
"""What a form may take beside its file: fields, names of columns, boundaries."""


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
            form = await _Form(request.headers, request.stream(), max_files=1, max_fields=MAX_FIELDS).parse()
        except MultiPartException as error:
            raise BadRequest(f"Expected a form. {error.message}") from None
        try:
            yield _of_form(form)
        finally:
            await form.close()
        return
    options = _checked(getattr(request.state, "json", None))
    if options.uri is None:
        refuse(("uri",), "Expected the URI of a file, or an upload as multipart/form-data. Received: none")
    yield Brought(options, None)


class _Form(MultiPartParser):
    """A form whose fields are held in memory, so that all of them together are bounded; its file is not."""

    _field_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._field_bytes += end - start
            if self._field_bytes > FORM_BYTES:
                raise MultiPartException(f"Expected fields of at most {FORM_BYTES:,} bytes together.")
        super().on_part_data(data, start, end)


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
def source_of(what: Brought, settings: Settings) -> Iterator[tuple[Source, Reading, Path]]:
    """The file that a request brings, how it is to be read, and a folder to work in; all gone with the block.

    Raises:
        InvalidDataset: it is not below the operator's roots, too large, or of no known format.
    """
    with Scratch("upload") as scratch:
        path = scratch.path / "source"
        if what.file is not None:
            reading = what.options.reading(what.file.filename or "")
            source = _saved(what.file, path)
        else:
            uri = str(what.options.uri)
            named = locate(uri, roots_of(settings.dataset_roots))
            reading = what.options.reading(uri)
            try:
                digest = named.copy(path, settings.max_upload_bytes)
            except TooLarge as error:
                refuse(("uri",), f"{error}")
            except OSError as error:
                refuse(("uri",), f"Expected a file that can be read. Received: {type(error).__name__}")
            source = Source(path, digest, path.stat().st_size)
        if source.size > settings.max_upload_bytes:
            raise BodyTooLarge(
                f"Expected a file of at most {settings.max_upload_bytes:,} bytes. Received a larger one."
            )
        yield source, reading, scratch.path


def _saved(file: UploadFile, path: Path) -> Source:
    with path.open("wb") as copy:
        shutil.copyfileobj(file.file, copy, 2**20)
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Source(path, digest, path.stat().st_size)


def fingerprint(options: DatasetOptions, digest: str) -> Any:
    """What makes a request the same as another: what it says, and the content of its file."""
    return {**json.loads(options.model_dump_json()), "content": digest}
