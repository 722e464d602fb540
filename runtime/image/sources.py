"""What `enclave build IMAGE` takes: an OCI layout or a docker-save archive, each a folder or a file, or a root file system, likewise."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.image.archive import Files, archive_files, folder_files
from runtime.image.compressed import unpack
from runtime.image.container import find_docker, find_oci, flatten
from runtime.image.contents import BadImage, Tree
from runtime.image.declared import Declared
from runtime.image.folders import read_root_folder
from runtime.image.layers import apply_layer
from runtime.image.spool import Spool, open_file

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image as a tree whose bodies are in `spool`. `form` is its kind for people, `digest` the image's own, where it has one."""

    form: str
    digest: str
    tree: Tree
    spool: Spool
    declared: Declared
    left_out: tuple[str, ...] = field(default=())


def read_source(path: Path, platform: str, spool: Spool, progress: Callable[[str], None]) -> Source:
    """Reads the image at `path` for a platform such as "linux/amd64". Raises `BadImage`."""
    if path.is_dir():
        files = folder_files(path)
        if container := _container(files, platform, spool, progress):
            return container
        tree = Tree()
        progress(f"reading the root file system {path}")
        sockets = read_root_folder(path, tree)
        return Source(form="root folder", digest="", tree=tree, spool=spool, declared=Declared(), left_out=sockets)
    with open_file(str(path)) as file:
        progress(f"reading {path}")
        unpacked = unpack(iter(lambda: file.read(_CHUNK), b""), spool, path.name)
    if not unpacked.size:
        raise BadImage(f"{path}: the file is empty")
    files = archive_files(spool, offset=unpacked.offset, size=unpacked.size)
    if container := _container(files, platform, spool, progress):
        return container
    tree = Tree()
    apply_layer(tree, spool, offset=unpacked.offset, size=unpacked.size)
    return Source(form="root archive", digest="", tree=tree, spool=spool, declared=Declared())


def _container(files: Files, platform: str, spool: Spool, progress: Callable[[str], None]) -> Source | None:
    """An image in layers, None when these files are none. Docker's newer archives are both kinds: then the layout counts."""
    if "oci-layout" in files.top:
        form, container = "OCI layout", find_oci(files, platform)
    elif "manifest.json" in files.top and _is_saved(files):
        form, container = "docker-save archive", find_docker(files, platform)
    else:
        return None
    tree = Tree()
    declared = flatten(container, files, tree, spool, progress)
    return Source(form=form, digest=container.digest, tree=tree, spool=spool, declared=declared)


def _is_saved(files: Files) -> bool:
    """A root file system may have a manifest.json of its own; docker's is a list."""
    body = files.find("manifest.json")
    return next(iter(files.read(body)), b"").lstrip().startswith(b"[")
