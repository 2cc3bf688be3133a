// Written by scripts/cuda-build; do not edit.
&[
    ("clip", include_bytes!("clip.fatbin")),
    ("decode", include_bytes!("decode.fatbin")),
    ("encode", include_bytes!("encode.fatbin")),
    ("encrypt", include_bytes!("encrypt.fatbin")),
    ("fwht", include_bytes!("fwht.fatbin")),
    ("ghost", include_bytes!("ghost.fatbin")),
    ("gram", include_bytes!("gram.fatbin")),
    ("mask", include_bytes!("mask.fatbin")),
    ("noise", include_bytes!("noise.fatbin")),
    ("ntt", include_bytes!("ntt.fatbin")),
    ("pack", include_bytes!("pack.fatbin")),
    ("residues", include_bytes!("residues.fatbin")),
    ("select", include_bytes!("select.fatbin")),
    ("sum", include_bytes!("sum.fatbin")),
]
