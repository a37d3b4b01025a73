"""Optional libraries: which are there, and which the settings want."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok

OPTIONAL = {
    "torch": ("gp", "the sampler `gp`"),
    "s3fs": ("s3", "locations and roots that begin with s3://"),
}
"""By module: the extra that brings it, and what needs it."""


def optional_libraries(examination: Examination) -> Iterator[Finding]:
    """Look for each of them without importing it."""
    settings = examination.settings
    urls = (settings.artifact_url, settings.dataset_url, *settings.dataset_roots.split(","))
    wanted = {"s3fs"} if any(url.strip().startswith("s3://") for url in urls) else set[str]()
    for module, (extra, use) in OPTIONAL.items():
        expected = f"{module}, for {use}"
        if find_spec(module) is not None:
            yield ok(module, expected, _version(module))
        elif module in wanted:
            yield failed(module, expected, "not installed", f"`pip install 'fettle[{extra}]'`.")
        else:
            yield ok(module, f"{expected}, where it is used", "not installed, and no setting asks for it")


def _version(module: str) -> str:
    try:
        return version(module)
    except PackageNotFoundError:
        return "installed, of unknown version"
