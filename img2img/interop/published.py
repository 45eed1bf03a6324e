"""What other projects have published: where it is, how large, and what its checksum is, as far as anybody has written it down."""

from dataclasses import dataclass
from typing import Literal

BERKELEY = "efrosgans.eecs.berkeley.edu"
CODE = "the projects' code is under BSD licences, and nothing else is said of the weights"


@dataclass(frozen=True)
class Published:
    """A file on the internet."""

    name: str
    kind: Literal["model", "dataset"]
    project: Literal["cyclegan", "pix2pix", "cut"]
    url: str
    licence: str
    """Terms and origin, for a person."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Of a model: which side of its data set was the source."""
    member: str = ""
    """Of an archive of several models: how the name of this one ends."""
    size: int | None = None
    """In bytes."""
    checksum: str = ""
    """``sha256:…`` or ``md5:…``; none if none was found anywhere."""

    @property
    def whole_name(self) -> str:
        """With the project."""
        return f"{self.project}/{self.name}"


def _cyclegan(name: str, size: int | None = None, checksum: str = "") -> Published:
    url = f"https://{BERKELEY}/cyclegan/pretrained_models/{name}.pth"
    return Published(name, "model", "cyclegan", url, CODE, size=size, checksum=checksum)


def _pix2pix(name: str, direction: Literal["AtoB", "BtoA"] = "AtoB", size: int | None = None) -> Published:
    url = f"http://{BERKELEY}/pix2pix/models-pytorch/{name}.pth"
    return Published(name, "model", "pix2pix", url, CODE, direction, size=size)


def _cut(name: str, direction: Literal["AtoB", "BtoA"] = "AtoB") -> Published:
    url, member = f"http://{BERKELEY}/CUT/pretrained_models.tar", f"{name}_pretrained/latest_net_G.pth"
    return Published(name, "model", "cut", url, CODE, direction, member)


MODELS = (
    _cyclegan(
        "apple2orange", 45575747, "sha256:ff989c98f3a077cd11c2623ed8742e2ef147e81d10b4e4c2ee6935796bda957a"
    ),  # in two places on the internet
    *map(
        _cyclegan,
        [
            "orange2apple",
            "summer2winter_yosemite",
            "winter2summer_yosemite",
            "horse2zebra",
            "zebra2horse",
            "monet2photo",
            "style_monet",
            "style_cezanne",
            "style_ukiyoe",
            "style_vangogh",
            "sat2map",
            "map2sat",
            "cityscapes_photo2label",
            "cityscapes_label2photo",
            "facades_photo2label",
            "facades_label2photo",
            "iphone2dslr_flower",
        ],
    ),
    _pix2pix("edges2shoes"),
    _pix2pix("sat2map", size=217704720),
    _pix2pix("map2sat"),
    _pix2pix("facades_label2photo", "BtoA"),
    _pix2pix("day2night", "BtoA"),
    _cut("cityscapes_cut", "BtoA"),
    _cut("cityscapes_fastcut", "BtoA"),
    *map(_cut, ("horse2zebra_cut", "horse2zebra_fastcut", "cat2dog_cut", "cat2dog_fastcut")),
)


def _zip(name: str, origin: str, size: int | None = None, checksum: str = "") -> Published:
    url = f"https://{BERKELEY}/cyclegan/datasets/{name}.zip"
    return Published(
        name, "dataset", "cyclegan", url, f"{origin}; ask there what is allowed", size=size, checksum=checksum
    )


def _tar(name: str, origin: str, size: int | None, md5: str) -> Published:
    url = f"https://{BERKELEY}/pix2pix/datasets/{name}.tar.gz"
    return Published(
        name, "dataset", "pix2pix", url, f"{origin}; ask there what is allowed", size=size, checksum=f"md5:{md5}"
    )


PAINTINGS = "paintings of WikiArt and photos of Flickr"
DATASETS = (
    # sizes and SHA-256 as TensorFlow Datasets has them, MD5 of the others as MLHub has them
    _zip("apple2orange", "ImageNet", 78456409, "sha256:845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8"),
    _zip("cezanne2photo", PAINTINGS, 279885071, "sha256:3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff"),
    _zip("facades", "CMP Facades", 35135868, "sha256:9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0"),
    _zip("horse2zebra", "ImageNet", 116867962, "sha256:a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1"),
    _zip("iphone2dslr_flower", "Flickr", 339964458, "sha256:8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113"),
    _zip("maps", "Google Maps", 1476754427, "sha256:639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e"),
    _zip("monet2photo", PAINTINGS, 305231073, "sha256:88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04"),
    _zip("summer2winter_yosemite", "Flickr", 132640856, "sha256:167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9"),
    _zip("ukiyoe2photo", PAINTINGS, 292946532, "sha256:02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08"),
    _zip("vangogh2photo", PAINTINGS, 306590349, "sha256:362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff"),
    _zip("ae_photos", "Flickr", None, "md5:93831625466b64eaeba58babc52d70f9"),
    _zip("grumpifycat", "Oxford-IIIT Pets and photos of one cat", None, "md5:cd971b33708c50f02cb2f9f89181883a"),
    _tar("facades", "CMP Facades", 30168306, "e2e25dd517e9d15828416ab329da2854"),
    _tar("maps", "Google Maps", 250242400, "e5f65d26eb288457f5ac056deb94d154"),
    _tar("edges2shoes", "UT Zappos50K", None, "71da478b54fedde126e234a2a050bc15"),
    _tar("edges2handbags", "Amazon", None, "815592f22fa7f7534a286a25bb73bf03"),
    _tar("night2day", "Transient Attributes", None, "fd21b1d447a1f927fed41aabedd85baa"),
)  # fmt: skip
