"""Data sets: those that come along, and those that users bring."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from anyio import to_thread
from fastapi import Request, Response
from sqlalchemy.orm import Session

from app.api.access import needs
from app.api.answers import answer, page
from app.api.dataset_views import DatasetInfo, DatasetPage, dataset_view
from app.api.deps import (
    DEFAULT_LIMIT,
    Api,
    Calling,
    Change,
    Changing,
    CursorText,
    IdempotencyKey,
    Limit,
    Project,
    Service,
)
from app.api.idempotency import once
from app.api.openapi import Responses
from app.api.pagination import Cursors
from app.api.routing import router as make_router
from app.api.uploads import (
    FORM,
    Brought,
    DatasetOptions,
    UploadRoute,
    brought,
    fingerprint,
    folder_to_work_in,
    source_of,
)
from app.compute import Bounds
from app.data.limits import READING_S, data_limits
from app.data.reading import no_room, refuse
from app.domain.access import Caller, Scope
from app.domain.datasets import BUILT_IN
from app.errors import NameTaken, NotFound, StateConflict, TooExpensive, Unready
from app.store import datasets
from app.store.projects import hold_project
from app.store.quotas import admit_bytes
from app.store.tables import StoredDataset

router = make_router("datasets", UploadRoute)
log = logging.getLogger(__name__)

_OPTIONS = DatasetOptions.model_json_schema(ref_template="#/components/schemas/{model}")
_FORM: dict[str, Any] = {
    **_OPTIONS,
    "properties": {"file": {"type": "string", "format": "binary"}, **_OPTIONS["properties"]},
    "required": ["file", "name"],
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {"schema": {**_FORM, "title": "Upload"}},
            "application/json": {"schema": {**_OPTIONS, "title": "Reference", "required": ["uri", "name"]}},
        },
    }
}


_AGAIN: Responses = {200: {"model": DatasetInfo, "description": "The data set that it is already"}}


@router.post("/v1/datasets", status_code=201, response_model=DatasetInfo, openapi_extra=_BODY, responses=_AGAIN)
@needs(Scope.SUBMIT, change="dataset.create")
async def create_dataset(
    request: Request, api: Api, caller: Calling, change: Changing, key: IdempotencyKey = None
) -> Response:
    """Upload a `.csv`, `.parquet` or `.npz` file, or register one by its URI. What it holds is inferred and answered.

    The same file, read the same way under the same name, is the same data set: 200.
    """
    try:
        async with brought(request) as what:
            return await _create(request, api, caller, change, key, what)
    except OSError as error:  # a form's file is put aside while it arrives
        raise no_room(error) from None


async def _create(
    request: Request, api: Service, caller: Caller, change: Change, key: str | None, what: Brought
) -> Response:
    """Put the file aside, have it read in a process with a limit on its memory, and publish what is kept of it."""
    options, limits = what.options, data_limits(api.settings)
    if options.name in BUILT_IN:
        raise NameTaken(f"Expected a name that no data set has. Received that of a built-in one: {options.name!r}")
    with folder_to_work_in() as folder:
        source, reading = await to_thread.run_sync(source_of, what, api.settings, folder, limiter=api.readers)
        keeping = await to_thread.run_sync(_keeping)
        naming = keeping.Naming(options.name, options.description, "upload" if options.uri is None else "reference")
        path = folder / "kept.npz"
        bounds = Bounds(READING_S, limits.memory_bytes)
        try:
            kept = await api.reading.compute(
                request, keeping.keep, source.path, reading, limits, naming, path, bounds=bounds
            )
        except TooExpensive:
            refuse(
                ("file",),
                f"Expected a file that is read in {bounds.seconds:g} s and {bounds.memory_bytes:,} bytes of memory. "
                "Received one that takes more, or that its reader breaks down over",
            )
        request.state.json = fingerprint(options, source.digest)
        new = datasets.NewDataset(
            kept.dataset,
            source.digest,
            kept.object_hash,
            source.size if options.uri is not None else kept.size_bytes,
            reading.model_dump_json(),
            options.uri,
        )
        publish = partial(_publish, request, api, key, new, path, partial(_add, new, caller, change), caller.project)
        return await to_thread.run_sync(publish, limiter=api.readers)


def _keeping() -> ModuleType:
    """What reads a file: imported when it is first needed, since it brings NumPy along."""
    from app.data import keeping

    return keeping


def _publish(
    request: Request,
    api: Service,
    key: str | None,
    new: datasets.NewDataset,
    kept: Path,
    work: Callable[[Session], Response],
    project: str,
) -> Response:
    """Have the file that is kept of an upload at its place, and the row that names it."""
    from app.data.files import DatasetFiles

    if new.uri is not None:
        return once(api, project, request, key, work)
    object_hash = new.object_hash
    try:
        files = DatasetFiles(api.settings.resolved_dataset_url)
        if not files.has(object_hash):
            # Looked at before a file is copied to the store, and again where the row is written.
            api.database.run(partial(admit_bytes, project=project, size=new.size_bytes))
        files.ensure(object_hash, kept)
        try:
            response = once(api, project, request, key, work)
        except Exception:
            files.remove(object_hash, lambda: _is_wanted(api, object_hash))
            raise
        if _is_wanted(api, object_hash):
            files.ensure(object_hash, kept)  # a deletion may have come between
        else:
            files.remove(object_hash, lambda: _is_wanted(api, object_hash))  # an old answer, of one deleted since
    except OSError as error:
        log.exception("data sets can't be written")
        raise Unready("Expected a place for data sets that can be written (FETTLE_DATASET_URL).") from error
    return response


def _add(new: datasets.NewDataset, caller: Caller, change: Change, session: Session) -> Response:
    hold_project(session, caller.project)
    row, is_new = datasets.add_dataset(session, new, project=caller.project, created_by=caller.name)
    change.note(session, row.public_id, new=is_new)
    content = dataset_view(datasets.dataset_of(row), row)
    return answer(content, 201 if is_new else 200, location=f"/v1/datasets/{row.public_id}")


def _is_wanted(api: Service, object_hash: str) -> bool:
    with api.database.read() as session:
        return datasets.is_wanted(session, object_hash)


@router.get("/v1/datasets", response_model=DatasetPage)
@needs(Scope.READ)
def list_datasets(api: Api, project: Project, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Response:
    """The data sets: those that come along, then the project's own, the oldest first."""
    cursors = Cursors(["datasets", project], [int, int])
    came_along, stored = cursors.decode(cursor) or (0, 0)
    built_in = list(BUILT_IN.values())[came_along : came_along + limit]
    items = [dataset_view(dataset) for dataset in built_in]
    came_along += len(items)
    with api.database.read() as session:
        rows = datasets.list_datasets(session, project, after=stored, limit=limit - len(items) + 1)
    shown = rows[: limit - len(items)]
    items += [dataset_view(datasets.dataset_of(row), row) for row in shown]
    stored = shown[-1].id if shown else stored
    is_last = came_along == len(BUILT_IN) and len(rows) == len(shown)
    return page(items, None if is_last else cursors.encode((came_along, stored)))


@router.get("/v1/datasets/{dataset_id:id}", response_model=DatasetInfo)
@needs(Scope.READ)
def get_dataset(dataset_id: str, api: Api, project: Project) -> Response:
    """One data set, by its id or its name."""
    if dataset_id in BUILT_IN:
        return answer(dataset_view(BUILT_IN[dataset_id]))
    with api.database.read() as session:
        row = datasets.find_dataset(session, project, dataset_id)
    if row is None:
        raise NotFound(
            f"Expected the id or name of a data set. Received: {dataset_id[:100]!r}", code="DATASET_NOT_FOUND"
        )
    return answer(dataset_view(datasets.dataset_of(row), row))


@router.delete("/v1/datasets/{dataset_id:id}", status_code=204, response_class=Response)
@needs(Scope.SUBMIT, change="dataset.delete")
def delete_dataset(dataset_id: str, api: Api, project: Project, change: Changing) -> Response:
    """Forget a data set that no study uses, and its file where no other one has it."""
    if dataset_id in BUILT_IN:
        raise StateConflict(f"Expected a data set of your own. Received a built-in one: {dataset_id!r}")

    def work(session: Session) -> StoredDataset:
        deleted = datasets.delete_dataset(session, project, dataset_id)
        change.note(session, deleted.public_id)
        return deleted

    row = api.database.run(work)
    if row.uri is None:
        _remove_file(api, row.object_hash)
    return Response(status_code=204)


def _remove_file(api: Service, object_hash: str) -> None:
    """Delete a file that no data set has any more. One that can't be deleted stays: nothing points to it."""
    from app.data.files import DatasetFiles

    try:
        DatasetFiles(api.settings.resolved_dataset_url).remove(object_hash, lambda: _is_wanted(api, object_hash))
    except OSError as error:
        log.warning("the file of a deleted data set remains: %s: %s", object_hash, error)
