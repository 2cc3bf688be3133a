//! The texts of the shaders: WGSL has no imports, so what they share is put in front.

const PARAMS: &str = include_str!("../../../shaders/common/params.wgsl");

/// A stage: the name of its file, what comes before it, and its text.
type Shader = (&'static str, &'static [&'static str], &'static str);

/// All stages.
const SHADERS: &[Shader] = &[("fwht", &[], include_str!("../../../shaders/fwht.wgsl"))];

/// The whole text of a shader, or nothing if there is none of that name.
pub(super) fn source(file: &str) -> Option<String> {
    let (_, common, text) = SHADERS.iter().find(|(name, ..)| *name == file)?;
    Some([&[PARAMS][..], common, &[text]].concat().concat())
}
