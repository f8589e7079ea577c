"""KnownCheckpoint checkpoints: where they are, what they were trained for, under which licence.

Read off the authors' repositories, packages and model cards; no file could be fetched where this was
written, and none of these hosts states a sha256 beside its file, except the Hugging Face Hub, against
whose sum a download is checked.
"""

from dataclasses import dataclass

PRETRAINED = "pre-trained"


@dataclass(frozen=True, kw_only=True)
class KnownCheckpoint:
    """One file that its authors, or a port, put in public."""

    encoder: str  # name in the table of encoders
    name: str
    address: str  # as weights are named, or a page to download it from
    trained: str  # PRETRAINED, or on what it was fine-tuned
    licence: str
    loads: bool = True  # whether the address can be given as it is


def _hub(encoder: str, repository: str, trained: str, licence: str) -> KnownCheckpoint:
    return KnownCheckpoint(
        encoder=encoder, name=repository, address=f"hf-hub:{repository}", trained=trained, licence=licence
    )


def _url(encoder: str, address: str, trained: str, licence: str) -> KnownCheckpoint:
    name = address.split("?")[0].rsplit("/", 1)[1]
    return KnownCheckpoint(encoder=encoder, name=name, address=address, trained=trained, licence=licence)


def _page(encoder: str, name: str, address: str, trained: str, licence: str) -> KnownCheckpoint:
    return KnownCheckpoint(
        encoder=encoder, name=name, address=address, trained=trained, licence=licence, loads=False
    )


_AS2M, _AS20K, _AS = "fine-tuned on AudioSet-2M", "fine-tuned on AudioSet-20K", "fine-tuned on AudioSet"
_NC, _MIT, _APACHE = "CC BY-NC 4.0", "MIT (repository)", "Apache-2.0 (repository)"
_MAE, _UNILM = "github.com/facebookresearch/AudioMAE", "github.com/microsoft/unilm/tree/master/beats"
_ZENODO = "https://zenodo.org/records/{}/files/{}?download=1"
_PASST = "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/"
_GAUNERNST = "gaunernst/vit_base_patch16_1024_128.audiomae_as2m"

KNOWN: tuple[KnownCheckpoint, ...] = (
    _hub("audiomae", _GAUNERNST, PRETRAINED, _NC),
    _hub("audiomae", f"{_GAUNERNST}_ft_as20k", _AS20K, _NC),
    _page("audiomae", "pretrained.pth", _MAE, PRETRAINED, _NC),
    _page("audiomae", "finetuned.pth", _MAE, _AS2M, _NC),
    _page("beats", "BEATs_iter3_plus_AS2M.pt", _UNILM, PRETRAINED, _MIT),
    _page("beats", "BEATs_iter3+ (AS2M) cpt1 and cpt2", _UNILM, _AS2M, _MIT),
    _hub("eat", "worstchan/EAT-base_epoch30_pretrain", PRETRAINED, _MIT),
    _hub("eat", "worstchan/EAT-base_epoch30_finetune_AS2M", _AS2M, "MIT (repository and model card)"),
    _hub("eat-large", "worstchan/EAT-large_epoch20_pretrain", PRETRAINED, _MIT),
    _hub("eat-large", "worstchan/EAT-large_epoch20_finetune_AS2M", _AS2M, _MIT),
    _hub("sslam", "ta012/SSLAM_pretrain", PRETRAINED, _MIT),
    _hub("sslam", "ta012/SSLAM_AS2M_Finetuned", _AS2M, _MIT),
    _url("dasheng", _ZENODO.format(11511780, "dasheng_base.pt"), PRETRAINED, _APACHE),
    _url("dasheng", _ZENODO.format(13315686, "dasheng_audioset_mAP497.pt"), _AS, _APACHE),
    _hub("dasheng", "mispeech/dasheng-base", PRETRAINED, _APACHE),
    _url("dasheng-0.6b", _ZENODO.format(11511780, "dasheng_06b.pt"), PRETRAINED, _APACHE),
    _url("dasheng-1.2b", _ZENODO.format(11511780, "dasheng_12b.pt"), PRETRAINED, _APACHE),
    _hub("birdmae", "DBD-research-group/Bird-MAE-Base", PRETRAINED, "none stated"),
    _hub("birdmae-large", "DBD-research-group/Bird-MAE-Large", PRETRAINED, "none stated"),
    _hub("birdmae-huge", "DBD-research-group/Bird-MAE-Huge", PRETRAINED, "none stated"),
    _hub("ast", "MIT/ast-finetuned-audioset-10-10-0.4593", _AS, "BSD-3-Clause (model card)"),
    _url("passt", f"{_PASST}passt-s-f128-p16-s10-ap.476-swa.pt", _AS, "Apache-2.0 (hear21passt)"),
)


def known_checkpoints(encoder: str) -> list[KnownCheckpoint]:
    """Those of an encoder.

    >>> [each.trained for each in known_checkpoints("sslam")]
    ['pre-trained', 'fine-tuned on AudioSet-2M']
    """
    return [each for each in KNOWN if each.encoder == encoder]


def describe(weights: str) -> str:
    """What an address is known to hold, in brackets; empty where nothing is known of it.

    >>> describe("hf-hub:ta012/SSLAM_pretrain")
    ' (pre-trained; licence: MIT (repository))'
    """
    for each in KNOWN:
        if weights == each.address:
            return f" ({each.trained}; licence: {each.licence})"
    return ""
