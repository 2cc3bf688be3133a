// Written by scripts/cuda-build; do not edit.
&[
    ("fwht", include_bytes!("fwht.fatbin")),
]
