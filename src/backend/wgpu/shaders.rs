//! The texts of the shaders: WGSL has no imports, so what they share is put in front.

const PARAMS: &str = include_str!("../../../shaders/common/params.wgsl");
const DOUBLE: &str = include_str!("../../../shaders/common/double.wgsl");
const MODULAR: &str = include_str!("../../../shaders/common/modular.wgsl");
const PAIRS: &str = include_str!("../../../shaders/common/pairs.wgsl");
const PRG: &str = include_str!("../../../shaders/common/prg.wgsl");
const WIDE: &str = include_str!("../../../shaders/common/wide.wgsl");

/// A stage: the name of its file, what comes before it, and its text.
type Shader = (&'static str, &'static [&'static str], &'static str);

/// All stages.
const SHADERS: &[Shader] = &[
    ("clip", &[WIDE], include_str!("../../../shaders/clip.wgsl")),
    ("decode", &[], include_str!("../../../shaders/decode.wgsl")),
    ("encode", &[PRG, WIDE], include_str!("../../../shaders/encode.wgsl")),
    ("encrypt", &[MODULAR, PRG], include_str!("../../../shaders/encrypt.wgsl")),
    ("fwht", &[], include_str!("../../../shaders/fwht.wgsl")),
    ("ghost", &[WIDE, DOUBLE, PAIRS], include_str!("../../../shaders/ghost.wgsl")),
    ("gram", &[WIDE, DOUBLE, PAIRS], include_str!("../../../shaders/gram.wgsl")),
    ("mask", &[PRG, WIDE], include_str!("../../../shaders/mask.wgsl")),
    ("noise", &[PRG], include_str!("../../../shaders/noise.wgsl")),
    ("ntt", &[MODULAR], include_str!("../../../shaders/ntt.wgsl")),
    ("pack", &[], include_str!("../../../shaders/pack.wgsl")),
    ("residues", &[MODULAR], include_str!("../../../shaders/residues.wgsl")),
    ("select", &[WIDE, DOUBLE], include_str!("../../../shaders/select.wgsl")),
    ("sum", &[], include_str!("../../../shaders/sum.wgsl")),
];

/// The whole text of a shader, or nothing if there is none of that name.
pub(super) fn source(file: &str) -> Option<String> {
    let (_, common, text) = SHADERS.iter().find(|(name, ..)| *name == file)?;
    Some([&[PARAMS][..], common, &[text]].concat().concat())
}
