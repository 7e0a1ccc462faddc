//! Where weights come from, as asked for and as found.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use emo_proto::Error;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Where weights come from, as the user asks for it: `formula:SEED` or a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// Computed from the parameters' names: see [`formula`](super::formula).
    Formula(u64),
    /// A `torch.save` or safetensors file.
    File(PathBuf),
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(seed) = text.strip_prefix("formula:") else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        seed.parse().map(Self::Formula).map_err(|_| {
            Error::new(format!(
                "expected formula:SEED, SEED a whole number from 0 to {}, found {text:?}",
                u64::MAX
            ))
        })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formula(seed) => write!(f, "formula:{seed}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Where weights came from, as a file's metadata may tell it: no path, no host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Computed from the parameters' names; such a model is untrained.
    Formula { seed: u64 },
    /// Read from a file, known by its content.
    File {
        /// Of the whole file, lower-case hexadecimal.
        sha256: String,
        /// SHA-1 of `"blob " + size + "\0" + bytes`: git's name for the content.
        git_blob: String,
        /// Size of the file.
        bytes: u64,
        /// The published checkpoint that the file is, as its repository's path.
        official: Option<&'static str>,
        /// The checkpoint's entry that held the weights: `net_E`.
        entry: Option<String>,
    },
}

/// Git blob ids of the published checkpoints (github.com/zhangzjn/EMO, commit 27d9b40; of EMOv2
/// github.com/zhangzjn/data, commit 12360da).
const OFFICIAL: [(&str, &str); 11] = [
    ("76c4282de548fa76eca6011720b29d8f80ffa784", "resources/EMO_1M/net.pth"),
    ("9ec7138d292ca9b2d07923aec05762f547db8cf2", "resources/EMO_2M/net.pth"),
    ("3ea7450fa9c290c3c46f372c1f5cebe1198d1ce1", "resources/EMO_5M/net.pth"),
    ("10a248725247cf18b51e449dbd1a220354457c99", "resources/EMO_6M/net.pth"),
    ("4cbb1c0541597da1442bb5bd7f155fa9d00cd486", "EMOv2_1M_224.pth"),
    ("d3d292c37d874de97ed8828c61114b5365325d25", "EMOv2_1M_224_KD.pth"),
    ("009fd7338ac833177c5ae2014061d56203c423ea", "EMOv2_2M_224.pth"),
    ("bcc37347a7082df62a5c5f025a3f322fc273b46d", "EMOv2_2M_224_KD.pth"),
    ("174a94f26e6bd2456f396cca427702c3a70b412b", "EMOv2_5M_224.pth"),
    ("9332927c3751291dc574a151a10074bce706bb1f", "EMOv2_5M_224_KD.pth"),
    ("e1235b440edd1517bacd30fc6ff0c476098b2847", "EMOv2_5M_512_KD.pth"),
];

impl Origin {
    /// The published checkpoint of that git blob id, as its repository's path.
    #[must_use]
    pub fn official(git_blob: &str) -> Option<&'static str> {
        OFFICIAL.iter().find(|(blob, _)| *blob == git_blob).map(|(_, name)| *name)
    }

    /// Of a file's content and the entry that was read from it.
    pub fn of_file(content: &[u8], entry: Option<String>) -> Self {
        /// Both digests take a piece while it is in the cache.
        const PIECE: usize = 1 << 16;

        let (mut sha256, mut git_blob) = (Sha256::new(), Sha1::new());
        git_blob.update(format!("blob {}\0", content.len()));
        for piece in content.chunks(PIECE) {
            sha256.update(piece);
            git_blob.update(piece);
        }
        let git_blob = format!("{:x}", git_blob.finalize());
        Self::File {
            sha256: format!("{:x}", sha256.finalize()),
            bytes: content.len() as u64,
            official: Self::official(&git_blob),
            git_blob,
            entry,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formula { seed } => write!(f, "formula:{seed} (untrained)"),
            Self::File { sha256, git_blob, bytes, official, entry } => {
                if let Some(entry) = entry {
                    write!(f, "{entry} of ")?;
                }
                match official {
                    Some(name) => write!(f, "the official {name}")?,
                    None => f.write_str("a file")?,
                }
                write!(f, " ({bytes} bytes, sha256 {sha256}, git blob {git_blob})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_read_as_they_print() {
        for (text, spec) in [
            ("formula:0", Spec::Formula(0)),
            ("formula:18446744073709551615", Spec::Formula(u64::MAX)),
            ("net.pth", Spec::File("net.pth".into())),
            ("./formula:0", Spec::File("./formula:0".into())),
        ] {
            assert_eq!(text.parse::<Spec>(), Ok(spec.clone()));
            assert_eq!(spec.to_string(), text);
        }
        for text in ["formula:abc", "formula:", "formula:-1", "formula:18446744073709551616"] {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            assert!(error.contains("formula:SEED") && error.contains(text), "{error}");
        }
    }

    /// `printf 'hello\n' | sha256sum` and `… | git hash-object --stdin`.
    #[test]
    fn digests_are_those_of_sha256sum_and_git() {
        let origin = Origin::of_file(b"hello\n", Some("net_E".to_owned()));
        let expected = Origin::File {
            sha256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".to_owned(),
            git_blob: "ce013625030ba8dba906f756967f9e9ca394464a".to_owned(),
            bytes: 6,
            official: None,
            entry: Some("net_E".to_owned()),
        };
        assert_eq!(origin, expected);
        assert_eq!(
            origin.to_string(),
            "net_E of a file (6 bytes, \
             sha256 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03, \
             git blob ce013625030ba8dba906f756967f9e9ca394464a)"
        );
    }
}
