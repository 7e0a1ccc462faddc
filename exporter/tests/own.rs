//! Networks of one's own: what their files say, and what is wrong with one.

use emo_exporter::layer::{Act, Norm};
use emo_exporter::models::emo::{Network, Stage};
use emo_exporter::models::mmb::Attention;
use emo_exporter::models::own::{open, read, write};
use emo_exporter::models::{Definition, MODELS, Model};
use emo_exporter::profile::PROFILES;
use emo_exporter::target::Target;
use proptest::prelude::*;

/// The golden's file: two stages without attention, then two with.
const NANO: &str = include_str!("../../tests/data/emo-nano.toml");

#[test]
fn the_file_is_read_as_it_stands() {
    let model = read(NANO, "emo-nano.toml").unwrap();
    assert_eq!((model.name.as_ref(), model.title.as_ref(), model.classes), ("emo-nano", "emo-nano", 100));
    assert!(model.is_own());
    let Definition::Emo(network) = model.definition else { panic!("another family") };
    assert_eq!((network.stem, network.stages.len()), (16, 4));
    let first = Stage {
        depth: 1,
        dim: 24,
        expansion: 2.0,
        kernel: 3,
        norm: Norm::Batch,
        act: Act::Silu,
        attention: None,
    };
    let last = Stage {
        depth: 2,
        dim: 96,
        expansion: 3.5,
        kernel: 5,
        norm: Norm::Layer,
        act: Act::Gelu,
        attention: Some(Attention { head_dim: 24, window: Some(7) }),
    };
    assert_eq!((&network.stages[0], &network.stages[3]), (&first, &last));
}

#[test]
fn every_published_emo_reads_back() {
    let mut read_back = 0;
    for model in MODELS.iter().filter(|model| matches!(model.definition, Definition::Emo(_))) {
        for model in [model.clone(), model.with_classes(10)] {
            assert_eq!(read(&write(&model).unwrap(), "").as_ref(), Ok(&model), "{}", model.name);
            assert!(!model.is_own());
        }
        read_back += 1;
    }
    assert_eq!(read_back, 4);
}

const NAME: &str = "1: name: expected 1 to 64 letters, digits and '.', '_' or '-' between them, found ";
const TAKEN: &str = "1: name: expected a name of the network's own, found ";
const CHANNELS: &str = "expected a whole number from 1 to 8192, found ";
const FACTOR: &str = "16: expansion: expected a number above 0, 64 at most, found ";
const TOML: &str = "expected TOML, found a mistake: ";

/// What stands in the golden's file, what somebody made of it, and how the error goes on behind the file's name.
#[rustfmt::skip]
const MISTAKES: [(&str, &str, &[&str]); 44] = [
    ("name = \"emo-nano\"\n", "", &["1: expected a key name, found none"]),
    ("name = \"emo-nano\"", "name = 3", &["1: name: expected a text in quotes, found 3"]),
    ("name = \"emo-nano\"", "name = nano", &["1: ", TOML]),
    ("\"emo-nano\"", "\"\"", &[NAME, "\"\""]),
    ("\"emo-nano\"", "\"../nano\"", &[NAME, "\"../nano\""]),
    ("\"emo-nano\"", "'a\\b'", &[NAME, "\"a\\\\b\""]),
    ("\"emo-nano\"", "\"a\\u001b[2J\"", &[NAME, "\"a\\u{1b}[2J\""]),
    ("\"emo-nano\"", "\"emo-1m\"", &[TAKEN, "emo-1m, whose published numbers are others"]),
    ("\"emo-nano\"", "\"SSDLite-EMO-1M\"", &[TAKEN, "SSDLite-EMO-1M, whose published numbers are others"]),
    ("\"emo-nano\"", "\"EMO-5M\"", &[TAKEN, "EMO-5M, whose published numbers are others"]),
    ("stem = 16\n", "", &["1: expected a key stem, found none"]),
    ("stem = 16", "stem = 0", &["2: stem: ", CHANNELS, "0"]),
    ("stem = 16", "stem = -16", &["2: stem: ", CHANNELS, "-16"]),
    ("stem = 16", "stem = 16.0", &["2: stem: ", CHANNELS, "16.0"]),
    ("stem = 16", "stem = 99999999999999999999999", &["2: stem: ", CHANNELS, "99999999999999999999999"]),
    ("stem = 16", "stem = 16\nstem = 16", &["3: ", TOML, "duplicate key"]),
    ("stem = 16", "stems = 16", &["2: expected no key stems; did you mean stem?"]),
    ("classes = 100", "classes = 100\n\nlearning_rate = 1", &["5: expected no key learning_rate; there are name, stem, classes, head, stages"]),
    ("classes = 100", "classes = 0", &["3: classes: expected a whole number from 1 to 1048576, found 0"]),
    ("classes = 100", "classes = 1048577", &["3: classes: expected a whole number from 1 to 1048576, found 1048577"]),
    ("depth = 2\ndim = 40", "dim = 40", &["13: expected a key depth, found none"]),
    ("depth = 2\ndim = 40", "depth = 0\ndim = 40", &["14: depth: expected a whole number from 1 to 64, found 0"]),
    ("depth = 2\ndim = 40", "depth = 65\ndim = 40", &["14: depth: expected a whole number from 1 to 64, found 65"]),
    ("dim = 40", "dim = 0", &["15: dim: ", CHANNELS, "0"]),
    ("dim = 40", "dim = \"40\"", &["15: dim: ", CHANNELS, "\"40\""]),
    ("dim = 40", "dims = 40", &["15: expected no key dims; did you mean dim?"]),
    ("expansion = 2.5", "expansion = 0.0", &[FACTOR, "0.0"]),
    ("expansion = 2.5", "expansion = nan", &[FACTOR, "nan"]),
    ("expansion = 2.5", "expansion = inf", &[FACTOR, "inf"]),
    ("expansion = 2.5", "expansion = 0.001", &["16: expansion: expected a factor that leaves a channel at least of 24, found 0.001"]),
    ("2.5\nkernel = 3", "2.5\nkernel = 4", &["17: kernel: expected an odd number, found 4"]),
    ("2.5\nkernel = 3", "2.5\nkernel = 33", &["17: kernel: expected a whole number from 1 to 31, found 33"]),
    ("2.5\nkernel = 3\nnorm = \"batch\"", "2.5\nkernel = 3\nnorm = \"group\"", &["18: norm: expected \"batch\" or \"layer\", found \"group\""]),
    ("\"silu\"\n\n[[stages]]\ndepth = 3", "true\n\n[[stages]]\ndepth = 3", &["19: activation: expected \"silu\" or \"gelu\", found true"]),
    ("\"silu\"\n\n[[stages]]\ndepth = 3", "\"silu\"\nhead_dim = 8\n\n[[stages]]\ndepth = 3", &["20: head_dim: expected attention = true beside it, or no such key, found 8"]),
    ("\"silu\"\n\n[[stages]]\ndepth = 3", "\"silu\"\nattention = false\nwindow = 7\n\n[[stages]]\ndepth = 3", &["21: window: expected attention = true beside it, or no such key, found 7"]),
    ("attention = true\nhead_dim = 16", "attention = \"yes\"\nhead_dim = 16", &["28: attention: expected true or false, found \"yes\""]),
    ("head_dim = 16", "head_dim = 24", &["29: head_dim: expected a number that divides the 64 channels of dim, found 24"]),
    ("head_dim = 16", "head_dim = 0", &["29: head_dim: ", CHANNELS, "0"]),
    ("head_dim = 16\nwindow = 7", "head_dim = 16", &["21: expected a key window, found none"]),
    ("head_dim = 16\nwindow = 7", "head_dim = 16\nwindow = 0", &["30: window: expected a whole number from 1 to 64, found 0"]),
    ("head_dim = 16\nwindow = 7", "head_dim = 16\nwindow = 7 7", &["30: ", TOML]),
    ("dim = 96", "dim = 8184", &["34: dim: expected 500000000 parameters in all at most, found "]),
    ("classes = 100\n", "classes = 100\nstages = 3\n", &["4: stages: expected a table [[stages]] for each stage, found 3"]),
];

#[test]
fn a_mistake_is_one_error_with_its_line() {
    for (good, bad, told) in MISTAKES {
        assert_eq!(NANO.matches(good).count(), 1, "{good:?} stands once");
        let mut text = NANO.replace(good, bad);
        if bad.contains("stages = 3") {
            text.truncate(text.find("\n\n").unwrap());
        }
        let error = read(&text, "my.toml").expect_err(bad).to_string();
        assert!(error.starts_with(&format!("my.toml:{}", told.concat())), "{bad:?}: {error}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}

#[test]
fn two_to_six_stages() {
    let (top, stages) = NANO.split_at(NANO.find("[[stages]]").unwrap());
    let first = &stages[..stages[1..].find("[[stages]]").unwrap() + 1];
    for n in 0..=8 {
        let found = read(&format!("{top}{}", first.repeat(n)), "my.toml");
        let told = match n {
            0 => "my.toml:1: expected a key stages, found none",
            1 => "my.toml:5: stages: expected 2 to 6, found 1",
            7 => "my.toml:53: stages: expected 2 to 6, found 7",
            8 => "my.toml:53: stages: expected 2 to 6, found 8",
            _ => {
                let graph = found.unwrap().build(&Target::new(&PROFILES[0]));
                assert_eq!(graph.map(|graph| graph.outputs.len()), Ok(1), "{n} stages");
                continue;
            }
        };
        assert_eq!(found.unwrap_err().to_string(), told);
    }
}

#[test]
fn a_file_is_read_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    std::fs::write(&path, NANO).unwrap();
    assert_eq!(open(&path).unwrap().name, "emo-nano");
    for (bytes, told) in [
        (vec![b'#'; 70_000], "expected a file of 65536 bytes at most, found 70000"),
        (b"name = \"\xff\"".to_vec(), "expected text in UTF-8"),
        // Lists in lists, deeper than any parser should follow.
        (format!("name = {}", "[".repeat(60_000)).into_bytes(), "my.toml:1: expected TOML, found a mistake"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("my.toml"), "{error}");
    }
    assert!(open(folder.path()).unwrap_err().to_string().contains("expected a regular file, found a folder"));
}

/// A stage of few channels.
fn stage() -> impl Strategy<Value = Stage> {
    let numbers = (1..4_usize, 1..9_usize, 1..5_usize, 0..8_usize, 1..65_usize);
    let expansion = prop_oneof![1.0..8.0_f64, (4..33_u8).prop_map(|quarters| f64::from(quarters) / 4.0)];
    (numbers, expansion, any::<[bool; 3]>()).prop_map(|(numbers, expansion, [batch, silu, attends])| {
        let (depth, head_dim, heads, kernel, window) = numbers;
        Stage {
            depth,
            dim: head_dim * heads,
            expansion,
            kernel: 2 * kernel + 1,
            norm: if batch { Norm::Batch } else { Norm::Layer },
            act: if silu { Act::Silu } else { Act::Gelu },
            attention: attends.then_some(Attention { head_dim, window: Some(window) }),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_network_reads_back_and_builds(
        stem in 1..40_usize,
        classes in 1..50_usize,
        stages in prop::collection::vec(stage(), 2..=6),
    ) {
        let definition = Definition::Emo(Network { stem, stages });
        let model = Model { name: "any".into(), title: "any".into(), classes, definition };
        prop_assert_eq!(read(&write(&model).unwrap(), ""), Ok(model.clone()));
        for profile in &PROFILES {
            let built = model.build(&Target::new(profile));
            prop_assert!(built.is_ok(), "{}: {:?}", profile.name, built.err());
        }
    }

    #[test]
    fn an_edit_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = NANO.as_bytes().to_vec();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                // A larger number, where there is one.
                _ => if let Some(digit) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    bytes.insert(at + digit, b'1' + byte % 9);
                },
            }
        }
        match read(&String::from_utf8_lossy(&bytes), "my.toml") {
            Ok(model) => {
                prop_assert_eq!(read(&write(&model).unwrap(), ""), Ok(model.clone()));
                prop_assert!(model.build(&Target::new(&PROFILES[0])).is_ok());
            }
            Err(error) => prop_assert!(error.to_string().starts_with("my.toml:"), "{}", error),
        }
    }
}
