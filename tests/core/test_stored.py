"""Members of tar files and objects behind URLs, as paths."""

import io
import pickle
import tarfile
from pathlib import Path

import pytest
from helpers.data import write_tar

from img2img.core.stored import StoredPath, StoreError, TarIndex, list_folder, read_tar_index, resolve_path


def test_members_are_read_where_they_lie(tmp_path: Path) -> None:
    long, ü = "n" * 150 + "/x.png", "ü/no\udcffutf.png"
    shard = write_tar(tmp_path / "a.tar", {"b/x.png": b"abc", "a.cls": b"3", long: b"", ü: b"z" * 600})
    for name, data in {"b/x.png": b"abc", "a.cls": b"3", long: b"", ü: b"z" * 600}.items():
        member = resolve_path(shard / name)
        assert isinstance(member, StoredPath) and isinstance(member, Path)
        assert (member.container, member.member) == (str(shard), name)
        assert member.read_bytes() == data and member.is_file() and not member.is_dir() and member.exists()
        assert pickle.loads(pickle.dumps(member)) == member and member.name == Path(name).name
    gone = resolve_path(shard / "gone.png")
    assert not gone.exists()
    with pytest.raises(FileNotFoundError):
        gone.open()
    assert type(resolve_path(tmp_path / "no.tar" / "x.png")) is type(tmp_path), "there is no such tar file"


def test_names_are_found_whatever_their_order() -> None:
    names = ["b", "a", "c/d", "aa", "B"]
    index = TarIndex.of("x.tar", {name: (place, 10 * place) for place, name in enumerate(names)})
    assert index.list_names() == names
    assert [index.find(name) for name in names] == [(place, 10 * place) for place in range(5)]
    for gone in ("", "A", "ab", "d"):
        with pytest.raises(FileNotFoundError):
            index.find(gone)
        with pytest.raises(FileNotFoundError):
            TarIndex.of("x.tar", {}).find(gone)


def test_bad_tar_files_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "zip.tar").write_bytes(b"PK\3\4" + bytes(2000))
    with tarfile.open(tmp_path / "gz.tar", "w:gz"):
        pass
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a.png"))
    with tarfile.open(tmp_path / "out.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../a.png"))
    said = {
        "zip": "no tar file",
        "gz": "compressed",
        "twice": "a.png is in it twice",
        "out": "leads out",
        "gone": "No such",
    }
    for name, words in said.items():
        with pytest.raises(StoreError, match=words):
            read_tar_index(str(tmp_path / f"{name}.tar"))


def test_a_shard_that_is_cut_off_tells_after_what(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "a.tar", {f"{n}.png": bytes(700) for n in range(3)}).read_bytes()
    for size in (512, 1100, 1536, 2000, 2500, 3072, 3500):
        (tmp_path / f"{size}.tar").write_bytes(data[:size])
        last = [f"{n}.png" for n in range(3) if size >= 1536 * n + 512] or ["its beginning"]
        assert read_tar_index(str(tmp_path / f"{size}.tar")).cut == last[-1], size
    (tmp_path / "cut.tar").write_bytes(data[:2500])
    assert read_tar_index(str(tmp_path / "cut.tar")).cut == "1.png" and not read_tar_index(str(tmp_path / "a.tar")).cut
    with pytest.raises(OSError, match="bytes of it are missing"):
        resolve_path(tmp_path / "cut.tar" / "1.png").open()


def test_links_and_folders_are_no_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        entry = tarfile.TarInfo("a.png")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
        entry = tarfile.TarInfo("same.png")
        entry.type, entry.linkname = tarfile.LNKTYPE, "./a.png"
        archive.addfile(entry)
    assert read_tar_index(str(tmp_path / "a.tar")).list_names() == ["a.png", "same.png"]
    assert resolve_path(tmp_path / "a.tar" / "same.png").read_bytes() == b"abc", "GNU tar stores hard links so"


def test_folders_may_be_called_as_shards_are(tmp_path: Path) -> None:
    (tmp_path / "x.tar" / "sub").mkdir(parents=True)
    shard = write_tar(tmp_path / "x.tar" / "sub" / "a.tar", {"b.tar/c.png": b"abc", "..d.png": b"d"})
    member = resolve_path(shard / "b.tar" / "c.png")
    assert isinstance(member, StoredPath) and member.container == str(shard) and member.read_bytes() == b"abc"
    assert resolve_path(member) is member and resolve_path(shard / "..d.png").read_bytes() == b"d"
    assert type(resolve_path(tmp_path / "x.tar" / "sub" / "e.png")) is type(tmp_path)


def test_urls_keep_their_slashes() -> None:
    path = resolve_path(Path("s3://bucket/photos"))
    assert str(path / "a.png") == "s3://bucket/photos/a.png" == str(resolve_path("s3:/bucket/photos/a.png"))
    assert path.absolute() == path.resolve() == path and str(path.parent) == "s3://bucket"
    member = resolve_path("s3://bucket/a.tar/x/b.png")
    assert isinstance(member, StoredPath) and member.container == "s3://bucket/a.tar" and member.member == "x/b.png"
    assert type(resolve_path("C:/photos")) is type(Path())


def test_what_cannot_be_reached_is_a_sentence() -> None:
    with pytest.raises(StoreError, match="there is no protocol nonsense"):
        list_folder(StoredPath("nonsense://a/b"))
    for path in ("a/b", "s3://bucket/a::memory://b"):
        with pytest.raises(StoreError, match="name the folder"):
            list_folder(StoredPath(path))
    with pytest.raises(StoreError, match="can't be listed"):
        list_folder(StoredPath("memory://gone/b"))
