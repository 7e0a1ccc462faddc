//! What opening and writing refuse, and what they leave behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use emo_proto::file::{self, OnnxFile};
use emo_proto::tensor::{DataType, External, Tensor};
use emo_proto::tensor_proto::DataLocation;
use emo_proto::{
    AttributeProto, Bytes, GraphProto, Message, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
};
use tempfile::tempdir;

/// A model whose graph nests `depth` branches, as an If in an If does.
fn nested(depth: usize) -> ModelProto {
    let nest = |inner: GraphProto| {
        let attribute = AttributeProto { g: Some(inner.into()), ..Default::default() };
        let node = NodeProto { attribute: vec![attribute], ..Default::default() };
        GraphProto { node: vec![node], ..Default::default() }
    };
    let graph = (0..depth).fold(GraphProto::default(), |graph, _| nest(graph));
    ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() }
}

#[test]
fn other_files_are_no_models() {
    let elements = include_bytes!("data/elements.onnx");
    let cases: [(&[u8], &str); 8] = [
        (b"", "it is empty"),
        (&elements[..elements.len() - 1], "failed to decode Protobuf message"),
        (&elements[..2], "it holds no graph"),
        (b"PK\x03\x04\x00\x00", "it starts like a zip archive, as torch.save writes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "it starts like a web page"),
        (b"{\"a\": 1}", "it starts like JSON"),
        (&nested(60).encode_to_vec(), "expected messages that nest to 100 at most"),
    ];
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    for (bytes, why) in cases {
        fs::write(&path, bytes).unwrap();
        let error = file::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: not an ONNX model: {why}", path.display())), "{error}");
    }
    assert!(OnnxFile::from_bytes(nested(31).encode_to_vec().into(), External::none()).is_ok());
}

#[test]
fn only_regular_files_are_opened() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let pipe = folder.path().join("pipe");
    let cases = [
        (folder.path().to_owned(), "expected a regular file, found a folder"),
        (folder.path().join("absent"), "No such file"),
        (file.join("below"), "Not a directory"),
        (pipe.clone(), "expected a regular file, found a device or a pipe"),
    ];
    if cfg!(unix) {
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, why) in cases {
            for opened in
                [file::map(&path).err(), file::read(&path, 1).err(), file::Source::open(&path).err()]
            {
                let error = opened.unwrap().to_string();
                assert!(error.starts_with(&format!("{}: {why}", path.display())), "{error}");
            }
        }
    }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn writing_replaces_the_whole_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    file::write_atomic(&path, b"a longer first version").unwrap();
    let old = file::map(&path).unwrap();
    file::write_atomic(&path, b"second").unwrap();
    assert_eq!(old, "a longer first version", "a mapping outlives the replacement");
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(names(folder.path()), ["model.onnx"]);
}

/// What a killed process left goes with the next write, what another one is writing stays.
#[test]
fn leftovers_are_cleared_away() {
    let folder = tempdir().unwrap();
    let [left, held, path] =
        [".emo-a.part", ".emo-b.part", "model.onnx"].map(|name| folder.path().join(name));
    fs::write(&left, "half").unwrap();
    fs::write(&held, "half").unwrap();
    let holder = fs::File::open(&held).unwrap();
    holder.lock().unwrap();
    file::write_atomic(&path, b"whole").unwrap();
    assert_eq!(names(folder.path()), [".emo-b.part", "model.onnx"]);
    drop(holder);
    file::write_atomic(&path, b"whole").unwrap();
    assert_eq!(names(folder.path()), ["model.onnx"]);
}

#[test]
fn copies_are_bounded() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "12345").unwrap();
    assert_eq!(file::read(&path, 5).unwrap(), "12345");
    assert_eq!(file::text(&path, 5).unwrap(), "12345");
    let error = file::read(&path, 4).unwrap_err().to_string();
    assert!(error.ends_with("expected a file of 4 bytes at most, found 5"), "{error}");
    let source = file::Source::open(&path).unwrap();
    assert_eq!(source.read(1..3).unwrap(), "23");
    assert!(source.read(3..6).is_err());
    let error = source.read(0..1 << 60).unwrap_err().to_string();
    assert!(error.contains("expected memory for 1152921504606846976 bytes, found too little"), "{error}");
}

#[test]
fn a_failed_write_leaves_nothing() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "kept").unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let cases = [
        (folder.path().join("folder"), "cannot write: expected a regular file, found a folder".to_owned()),
        (file.join("below"), format!("cannot write: there is no folder {}", file.display())),
        (folder.path().join("no/model.onnx"), "cannot write: there is no folder".to_owned()),
        (folder.path().join(".."), "cannot write: the path names no file".to_owned()),
    ];
    for (path, why) in cases {
        let error = file::write_atomic(&path, b"new").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: {why}", path.display())), "{error}");
    }
    assert_eq!(names(folder.path()), ["file", "folder"]);
    assert_eq!(fs::read(&file).unwrap(), b"kept");
}

#[cfg(unix)]
#[test]
fn permissions_and_links_are_those_of_an_ordinary_write() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempdir().unwrap();
    let [ours, plain, link] = ["ours", "plain", "link"].map(|name| folder.path().join(name));
    fs::write(&plain, "").unwrap();
    file::write_atomic(&ours, b"").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));

    symlink("ours", &link).unwrap();
    file::write_atomic(&link, b"through").unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(&ours).unwrap(), b"through");
    assert!(file::write_atomic(Path::new("/dev/null"), b"").is_err());
}

/// A tensor of two bytes in an external file, told by `entries`.
fn outside(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    TensorProto {
        name: Some("w".to_owned()),
        data_type: Some(DataType::Uint8.into()),
        dims: vec![2],
        data_location: Some(DataLocation::External.into()),
        external_data: entries.iter().map(entry).collect(),
        ..TensorProto::default()
    }
}

#[test]
fn external_data_stays_inside_its_folder_and_file() {
    let parent = tempdir().unwrap();
    let folder = parent.path().join("model");
    fs::create_dir_all(folder.join("below")).unwrap();
    fs::write(parent.path().join("secret"), "secret").unwrap();
    fs::write(folder.join("w.bin"), "abcd").unwrap();
    fs::write(folder.join("below/w.bin"), "efgh").unwrap();
    let external = External::folder(&folder);
    let decode = |entries: &[(&str, &str)]| Tensor::decode(&outside(entries), &external);

    let bytes = |entries: &[(&str, &str)]| decode(entries).unwrap().bytes().clone();
    assert_eq!(bytes(&[("location", "w.bin")]), Bytes::from("ab"));
    assert_eq!(bytes(&[("location", "./w.bin"), ("offset", "2"), ("length", "2")]), Bytes::from("cd"));
    assert_eq!(bytes(&[("location", "below/w.bin"), ("offset", "1"), ("checksum", "?")]), Bytes::from("fg"));

    let secret = parent.path().join("secret").display().to_string();
    let climbs = "the location must be a relative path without `..`";
    let cases: [(&[(&str, &str)], &str); 13] = [
        (&[], "external data has no location"),
        (&[("location", "")], climbs),
        (&[("location", "../secret")], climbs),
        (&[("location", "below/../w.bin")], climbs),
        (&[("location", &secret)], climbs),
        (&[("location", "absent.bin")], "No such file"),
        (&[("location", "below")], "expected a regular file, found a folder"),
        (&[("location", "w\0.bin")], ""),
        (&[("location", "w.bin"), ("offset", "3")], "expected 2 bytes at offset 3, found a file of 4 bytes"),
        (&[("location", "w.bin"), ("offset", "18446744073709551615")], "expected 2 bytes at offset"),
        (&[("location", "w.bin"), ("offset", "-1")], "expected a number of bytes as offset, found \"-1\""),
        (&[("location", "w.bin"), ("length", "3")], "its length is 3 bytes where the shape needs 2"),
        (&[("location", "w.bin"), ("location", "x")], "external data gives its location twice"),
    ];
    for (entries, why) in cases {
        let error = decode(entries).unwrap_err().to_string();
        assert!(error.starts_with("tensor \"w\": ") && error.contains(why), "{error}");
    }

    #[cfg(unix)]
    {
        let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, folder.join(from)).unwrap();
        link("../secret", "out");
        link("..", "up");
        link("w.bin", "in");
        for location in ["out", "up/secret"] {
            let error = decode(&[("location", location)]).unwrap_err().to_string();
            assert!(error.contains("leaves the model's folder through a symbolic link"), "{error}");
        }
        assert_eq!(bytes(&[("location", "in")]), Bytes::from("ab"));
    }
}
